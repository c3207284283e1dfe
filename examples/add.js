// curl "$FOB/api/call/$ID?param1:1,param2:1"
function callme(param1, param2) {
  if (param1 === '' || param2 === '') return null;
  return Number(param1) + Number(param2);
}
