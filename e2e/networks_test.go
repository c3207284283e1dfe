package e2e

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/flockofbirds/fob/internal/pages"
)

// netProbe tries to reach each target, by itself and through the proxy that it may
// have, and says which it reached.
const netProbe = `
import os, socket, threading

def tcp(host, port):
    with socket.create_connection((host, port), timeout=3) as conn:
        return speak(conn)

def proxied(host, port):
    via = os.environ["HTTPS_PROXY"].rpartition("/")[2].partition(":")
    with socket.create_connection((via[0], int(via[2])), timeout=10) as conn:
        conn.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            piece = conn.recv(1)
            if not piece:
                return False
            head += piece
        return head.startswith(b"HTTP/1.1 200") and speak(conn)

def speak(conn):
    conn.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
    return bool(conn.recv(100))

def unix(path):
    with socket.socket(socket.AF_UNIX) as conn:
        conn.settimeout(3)
        conn.connect(path)
        return True

def linklocal(addresses, port):
    for address in addresses:
        for index, _ in socket.if_nameindex():
            try:
                with socket.socket(socket.AF_INET6) as conn:
                    conn.settimeout(1)
                    conn.connect((address, port, 0, index))
                    return True
            except OSError:
                pass
    return False

def raw():
    for args in ((socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP), (socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))):
        try:
            socket.socket(*args).close()
            return True
        except OSError:
            pass
    return False

def reaches(kind, args):
    ways = {"tcp": [tcp], "unix": [unix], "ll": [linklocal], "raw": [raw], "dns": [lambda name: bool(socket.getaddrinfo(name, 80))]}[kind]
    if kind == "tcp" and "HTTPS_PROXY" in os.environ:
        ways.append(proxied)
    for way in ways:
        try:
            if way(*args):
                return True
        except OSError:
            pass
    return False

def callme(targets):
    found = {}
    def look(name, tries):
        found[name] = "reached" if any([reaches(kind, args) for kind, *args in tries]) else "refused"
    threads = [threading.Thread(target=look, args=item) for item in targets.items()]
    for t in threads: t.start()
    for t in threads: t.join()
    return found
`

// probeJS is what Node's own clients add, which go to the proxy by themselves.
const probeJS = `
const http = require('http');
exports.callme = async (urls) => {
  const found = {};
  for (const url of urls) {
    found['fetch ' + url] = await fetch(url, { signal: AbortSignal.timeout(5000) }).then((a) => a.text(), () => 'refused');
    found['http ' + url] = await new Promise((done) => {
      http.get(url, { timeout: 5000 }, (answer) => { answer.resume(); done('hello'); })
        .on('error', () => done('refused')).on('timeout', function () { this.destroy(); });
    });
  }
  return found;
};
`

// run runs a command of this machine's, which has to be root's.
func run(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// outside is a machine beyond this one: a network namespace behind a cable.
// What connects to any of its addresses, at any of its ports, hears hello.
func outside(t *testing.T, addresses ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes a network namespace and firewall rules: run it as root")
	}
	raw := make([]byte, 3)
	rand.Read(raw)
	name := "fobout" + hex.EncodeToString(raw)
	run(t, "ip", "netns", "add", name)
	t.Cleanup(func() { run(t, "ip", "netns", "del", name) }) // and the cable with it
	run(t, "ip", "link", "add", name, "type", "veth", "peer", "name", "out0", "netns", name)
	run(t, "ip", "address", "add", "203.0.113.249/30", "dev", name)
	run(t, "ip", "link", "set", name, "up")
	inside := func(args ...string) { run(t, append([]string{"ip", "netns", "exec", name, "ip"}, args...)...) }
	inside("link", "set", "out0", "up")
	inside("address", "add", "203.0.113.250/30", "dev", "out0")
	inside("route", "add", "default", "via", "203.0.113.249")
	for _, address := range addresses {
		inside("address", "add", address+"/32", "dev", "out0")
		run(t, "ip", "route", "add", address+"/32", "via", "203.0.113.250")
	}
	server := exec.Command("ip", "netns", "exec", name, "python3", "-c", `
import select, socket
servers = [socket.create_server(("0.0.0.0", port)) for port in (80, 8443)]
print("up", flush=True)
while True:
    for server in select.select(servers, [], [])[0]:
        conn, _ = server.accept()
        conn.settimeout(5)
        try:
            conn.recv(4096)
            conn.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        except OSError: pass
        conn.close()
`)
	stdout, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Process.Kill(); server.Wait() })
	if _, err := io.ReadFull(stdout, make([]byte, 3)); err != nil {
		t.Fatalf("the server does not come up: %v", err)
	}
}

// listenEverywhere serves on all of this machine's addresses what handle does
// with a connection, and returns the port.
func listenEverywhere(t *testing.T, handle func(net.Conn)) int {
	t.Helper()
	listener, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				handle(conn)
			}()
		}
	}()
	return listener.Addr().(*net.TCPAddr).Port
}

func sayHello(conn net.Conn) { conn.Read(make([]byte, 100)); io.WriteString(conn, "hello") }

// ownAddresses are those of this machine: an IPv4 address that is neither
// loopback's nor the gateway's, and all IPv6 link-local ones.
func ownAddresses(t *testing.T, gateway string) (other string, linkLocal []string) {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil {
			t.Fatal(err)
		}
		switch addr := prefix.Addr(); {
		case addr.Is6() && addr.IsLinkLocalUnicast():
			linkLocal = append(linkLocal, addr.String())
		case addr.Is4() && !addr.IsLoopback() && addr.String() != gateway && addr.String() != "203.0.113.249" && other == "":
			other = addr.String()
		}
	}
	return other, linkLocal
}

// TestDockerNetworkProbes looks from inside of sandboxes at what each network
// reaches, and holds it against the table of docs/operate/networks.md.
func TestDockerNetworkProbes(t *testing.T) {
	const listed, other, private, metadata = "203.0.113.253", "203.0.113.254", "10.255.253.254", "169.254.169.254"
	outside(t, listed, other, private, metadata)
	aviary := testAviary(t)
	// These addresses are no one's; so they stand for public ones.
	r := boot(t, "FOB_AVIARY="+aviary, "FOB_POOL=python=0,node=0", "FOB_PRIVATE_ADDRESSES="+listed+"/32,"+other+"/32")
	network := "fob-" + aviary + "-egress"
	peer := r.gen("", "def callme(): return 1")
	meta := r.meta(peer)
	gateway := strings.TrimSpace(dockerCLI(t, "network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", network))
	bridge := strings.TrimSpace(dockerCLI(t, "network", "inspect", "-f", `{{index .Options "com.docker.network.bridge.name"}}`, network))
	if !regexp.MustCompile(`^fob-[0-9a-f]{10}$`).MatchString(bridge) {
		t.Errorf("the bridge is called %q", bridge)
	}
	open := listenEverywhere(t, sayHello)
	_, port, _ := net.SplitHostPort(r.Addr())
	api, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	// As a reverse proxy in front of the dispatcher does it.
	exposed := listenEverywhere(t, func(conn net.Conn) {
		back, err := net.Dial("tcp", r.Addr())
		if err != nil {
			return
		}
		defer back.Close()
		go io.Copy(back, conn)
		io.Copy(conn, back)
	})
	elsewhere, linkLocal := ownAddresses(t, gateway)
	if len(linkLocal) == 0 {
		t.Error("this machine has no IPv6 link-local address to look for")
	}
	sockets := [][]any{}
	for _, path := range []string{"/var/run/docker.sock", "/run/docker.sock", "/proc/1/root/run/docker.sock", "/run/containerd/containerd.sock", "/run/fob/../docker.sock"} {
		sockets = append(sockets, []any{"unix", path})
	}
	peerName := "fob-" + aviary + "-" + meta.Sandboxes[0].ID
	targets := map[string][][]any{
		"another sandbox, at its driver's port":                  {{"tcp", *meta.Host, *meta.Port}},
		"this machine, at the address of the sandboxes' gateway": {{"tcp", gateway, open}},
		"this machine, at its other addresses":                   {{"tcp", elsewhere, open}},
		"this machine's loopback":                                {{"tcp", "127.0.0.1", open}, {"tcp", "localhost", open}, {"tcp", "[::1]", open}, {"tcp", "0.0.0.0", open}},
		"this machine's IPv6 link-local addresses":               {{"ll", linkLocal, open}},
		"the dispatcher's API, listening on 127.0.0.1":           {{"tcp", "127.0.0.1", api}, {"tcp", gateway, api}},
		"the dispatcher's API, reachable on all addresses":       {{"tcp", gateway, exposed}, {"tcp", elsewhere, exposed}},
		"the engine's socket":                                    sockets,
		"the engine at TCP port 2375, where it does not listen":  {{"tcp", gateway, 2375}, {"tcp", "127.0.0.1", 2375}},
		"a metadata service at 169.254.169.254":                  {{"tcp", metadata, 80}},
		"a private address beyond this machine":                  {{"tcp", private, 80}},
		"the host that is listed":                                {{"tcp", listed, 80}},
		"the same host at another port":                          {{"tcp", listed, 8443}},
		"a host that is not listed":                              {{"tcp", other, 80}},
		"the names of other sandboxes, by DNS":                   {{"dns", peerName}},
		"raw sockets":                                            {{"raw"}},
	}
	all := fmt.Sprintf("allow=*,*:8443,*:2375,*:8080,*:%d,*:%d,*:%d", open, api, exposed)
	columns := []string{"none", "allow=HOST:80", "allow=*", "egress", "egress, closed"}
	networks := []string{"none", "allow=" + listed + ":80", all, "egress", "egress"}
	rows := pages.Table(t, "docs/operate/networks.md", append([]string{"from a sandbox to"}, columns...)...)
	for i, column := range columns {
		t.Run(column, func(t *testing.T) {
			if column == "egress, closed" {
				closeEgress(t, bridge)
			}
			id := r.gen("?timeout=1m&network="+networks[i], netProbe)
			arguments, err := json.Marshal(map[string]any{"targets": targets})
			if err != nil {
				t.Fatal(err)
			}
			var answer struct{ Result map[string]string }
			a := r.do("POST", "/api/call/"+id, string(arguments))
			if err := json.Unmarshal([]byte(a.Body), &answer); err != nil || a.Status != 200 {
				t.Fatalf("%d %s", a.Status, a.Body)
			}
			for _, row := range rows {
				if found := answer.Result[row[0]]; found != row[i+1] {
					t.Errorf("%s: %q, and the table says %q", row[0], found, row[i+1])
				}
				delete(answer.Result, row[0])
			}
			if len(answer.Result) > 0 {
				t.Errorf("the table lacks %v", answer.Result)
			}
		})
	}

	// Node, whose clients know of no proxy by themselves.
	for network, reached := range map[string][]string{
		"none": {}, "allow=" + listed + ":80": {listed}, "allow=*": {listed, other}, "egress": {listed, other, gateway},
	} {
		id := r.gen("?lang=node&timeout=1m&network="+network, probeJS)
		urls := []string{"http://" + listed + "/", "http://" + other + "/", "http://" + metadata + "/"}
		if network != "egress" {
			urls = append(urls, fmt.Sprintf("http://%s:%d/", gateway, open))
		}
		arguments, err := json.Marshal(map[string]any{"urls": urls})
		if err != nil {
			t.Fatal(err)
		}
		var answer struct{ Result map[string]string }
		a := r.do("POST", "/api/call/"+id, string(arguments))
		if err := json.Unmarshal([]byte(a.Body), &answer); err != nil || a.Status != 200 {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
		for what, found := range answer.Result {
			_, url, _ := strings.Cut(what, " ")
			host := strings.Trim(strings.TrimPrefix(url, "http://"), "/")
			want := slices.Contains(reached, host) || network == "egress"
			if (found == "hello") != want {
				t.Errorf("node, network=%s: %s: %s", network, what, found)
			}
		}
	}

	// What was refused is counted, and nothing is left open.
	metrics := r.do("GET", "/metrics", "").Body
	for _, outcome := range []string{"allowed", "refused_host", "refused_address"} {
		if !regexp.MustCompile(`fob_egress_requests_total\{[^}]*outcome="` + outcome + `"[^}]*\} [1-9]`).MatchString(metrics) {
			t.Errorf("no request is counted as %s", outcome)
		}
	}
}

// closeEgress applies the rules of docs/operate/networks.md to one bridge, and takes
// them back at the end of the test.
func closeEgress(t *testing.T, bridge string) {
	t.Helper()
	_, text, found := strings.Cut(pages.Read(t, "docs/operate/networks.md"), "\n## Closing egress\n")
	rules := regexp.MustCompile("(?s)```sh by-hand\nBRIDGE=fob-\\+\n(.*?)```").FindStringSubmatch(text)
	if !found || rules == nil {
		t.Fatal("docs/operate/networks.md has no rules")
	}
	t.Cleanup(func() { run(t, "sh", "-ec", "BRIDGE="+bridge+"\n"+strings.ReplaceAll(rules[1], " -I ", " -D ")) })
	run(t, "sh", "-ec", "BRIDGE="+bridge+"\n"+rules[1])
}
