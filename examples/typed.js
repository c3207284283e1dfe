// JSON keeps its types; a destructured object binds by name just the same.
// curl -H 'Content-Type: application/json' -d '{"net": 19.9, "quantity": 3, "gift": true}' "$FOB/api/call/$ID"
function callme({ net, quantity = 1, gift = false, rebate = 0 }) {
  const total = (net * quantity * (100 - rebate)) / 100;
  return { total: Math.round(total * 100) / 100, gift };
}
