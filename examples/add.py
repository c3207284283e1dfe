# curl "$FOB/api/call/$ID?param1:1,param2:1"
def callme(param1, param2):
    if param1 == "" or param2 == "":
        return None
    return int(param1) + int(param2)
