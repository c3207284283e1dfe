// The standard Response is answered as it is, instead of as {"result": …}.
// curl -i "$FOB/api/call/$ID?name=Wren"
function callme(name = 'you') {
  return new Response(`Hello ${name}\n`, { status: 200, headers: { 'Content-Type': 'text/plain; charset=utf-8' } });
}
