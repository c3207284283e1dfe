# Annotations convert what a query string says.
# curl "$FOB/api/call/$ID?net=19.90&quantity=3&gift=yes"
def callme(net: float, quantity: int = 1, gift: bool = False, rebate: int | None = None):
    total = net * quantity * (100 - (rebate or 0)) / 100
    return {"total": round(total, 2), "gift": gift}
