// A parameter called request gets the caller's HTTP request.
// curl -H 'X-Bird: wren' -d 'any bytes' "$FOB/api/call/$ID/any/path?a=1"
function callme(request) {
  return {
    method: request.method,
    path: request.path,
    query: request.query,
    bird: request.headers['x-bird'],
    bytes: request.body.length,
  };
}
