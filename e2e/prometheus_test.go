package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/flockofbirds/fob/internal/client"
	"github.com/flockofbirds/fob/internal/pages"
)

// promtool runs Debian's promtool in the repository's folder.
func promtool(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.Command("promtool", args...)
	cmd.Dir, cmd.Stdin = root, strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("promtool %s: %v\n%s\n(scripts/setup test-quick installs promtool)", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// prometheus is a real one.
type prometheus struct {
	t   *testing.T
	url string
}

// startPrometheus runs Prometheus with the configuration in deploy/ until the test ends,
// but for other targets and short intervals. It begins with what is in the folder data.
func startPrometheus(t *testing.T, data string, targets ...string) *prometheus {
	t.Helper()
	config := pages.Read(t, "deploy/prometheus/prometheus.yml")
	found := regexp.MustCompile(`(?s)    dns_sd_configs:\n.*`)
	if !found.MatchString(config) || !strings.Contains(config, ": 15s") {
		t.Fatalf("deploy/prometheus/prometheus.yml has other targets or intervals:\n%s", config)
	}
	config = found.ReplaceAllString(config, fmt.Sprintf("    static_configs: [{targets: [%s]}]\n", strings.Join(targets, ", ")))
	config = strings.ReplaceAll(config, ": 15s", ": 1s")
	folder := t.TempDir()
	for name, text := range map[string]string{"prometheus.yml": config, "rules.yml": pages.Read(t, "deploy/prometheus/rules.yml")} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	addr, err := client.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command("prometheus", "--config.file="+filepath.Join(folder, "prometheus.yml"), "--storage.tsdb.path="+data, "--web.listen-address="+addr)
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	births <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		t.Fatalf("%v (scripts/setup test-quick installs it)", err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		if t.Failed() {
			t.Logf("Prometheus said:\n%s", log.String())
		}
	})
	p := &prometheus{t, "http://" + addr}
	eventually(t, time.Minute, "Prometheus is ready", func() bool {
		answer, err := http.Get(p.url + "/-/ready")
		if err == nil {
			answer.Body.Close()
		}
		return err == nil && answer.StatusCode == 200
	})
	return p
}

// ask reads a document of Prometheus's API.
func (p *prometheus) ask(path string, into any) {
	p.t.Helper()
	answer, err := http.Get(p.url + path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(into); err != nil || answer.StatusCode != 200 {
		p.t.Fatalf("GET %s: %d %v %+v", path, answer.StatusCode, err, into)
	}
}

// finds returns how many series a query finds that have a number.
func (p *prometheus) finds(query string) (series int) {
	p.t.Helper()
	var found struct {
		Data struct{ Result []struct{ Value [2]any } }
	}
	p.ask("/api/v1/query?query="+url.QueryEscape(query), &found)
	for _, one := range found.Data.Result {
		if one.Value[1] != "NaN" {
			series++
		}
	}
	return series
}

// rules returns the queries of the rules, by name, and fails the test if one cannot be
// evaluated.
func (p *prometheus) rules() map[string]string {
	p.t.Helper()
	var all struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Query, Health, LastError string }
			}
		}
	}
	p.ask("/api/v1/rules", &all)
	queries := map[string]string{}
	for _, group := range all.Data.Groups {
		for _, rule := range group.Rules {
			queries[rule.Name] = rule.Query
			if rule.Health == "err" {
				p.t.Errorf("%s: %s", rule.Name, rule.LastError)
			}
		}
	}
	return queries
}

// boardQueries returns the queries of the Grafana board, as they are with all functions.
func boardQueries(t *testing.T) (queries []string) {
	t.Helper()
	var board any
	if err := json.Unmarshal([]byte(pages.Read(t, "deploy/grafana/boards/fob.json")), &board); err != nil {
		t.Fatal(err)
	}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, item := range v {
				walk(item)
			}
		case map[string]any:
			for name, item := range v {
				if text, ok := item.(string); ok && name == "expr" {
					queries = append(queries, strings.NewReplacer("$__rate_interval", "5m", "$name", ".*").Replace(text))
				}
				walk(item)
			}
		}
	}
	walk(board)
	if len(queries) < 20 {
		t.Fatalf("the board has %d queries", len(queries))
	}
	return queries
}

// TestPromtool: Prometheus's own tool finds nothing wrong, and each alert fires when it
// should and not otherwise.
func TestPromtool(t *testing.T) {
	t.Parallel()
	promtool(t, "", "check", "config", "deploy/prometheus/prometheus.yml")
	promtool(t, "", "check", "rules", "deploy/prometheus/rules.yml")
	promtool(t, "", "test", "rules", "deploy/prometheus/rules_test.yml")
	tested := pages.Read(t, "deploy/prometheus/rules_test.yml")
	explained := map[string]bool{}
	for _, row := range pages.Table(t, "docs/operate/watching.md", "alert", "fires when") {
		explained[pages.Code(row[0])] = true
	}
	alerts := regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(pages.Read(t, "deploy/prometheus/rules.yml"), -1)
	for _, m := range alerts {
		if !strings.Contains(tested, "alertname: "+m[1]+"\n") {
			t.Errorf("no test has %s fire", m[1])
		}
		if !explained[m[1]] {
			t.Errorf("docs/operate/watching.md does not explain %s", m[1])
		}
	}
	if len(alerts) != len(explained) {
		t.Errorf("%d alerts are explained, and there are %d", len(explained), len(alerts))
	}
}

// TestComposeWatch: what the profile watch mounts is there.
func TestComposeWatch(t *testing.T) {
	mounts := regexp.MustCompile(`(?m)^ +- \./(deploy/[^:]+):(/[^:\n]+):ro$`).FindAllStringSubmatch(pages.Read(t, "docker-compose.yml"), -1)
	inside := map[string]string{} // path in a container → path here
	for _, m := range mounts {
		if info, err := os.Stat(filepath.Join(root, m[1])); err != nil || !info.IsDir() {
			t.Errorf("docker-compose.yml mounts %s: %v", m[1], err)
		}
		inside[m[2]] = m[1]
	}
	if len(mounts) != 3 {
		t.Errorf("docker-compose.yml mounts %v", mounts)
	}
	for _, path := range []string{"/etc/fob/prometheus.yml", "/etc/fob/boards/fob.json", "/etc/grafana/provisioning/datasources", "/etc/grafana/provisioning/dashboards"} {
		if !strings.HasPrefix(path, "/etc/grafana") && !strings.Contains(pages.Read(t, "docker-compose.yml"), path) {
			t.Errorf("docker-compose.yml does not name %s", path)
		}
		found := false
		for to, from := range inside {
			if rest, under := strings.CutPrefix(path, to+"/"); under {
				_, err := os.Stat(filepath.Join(root, from, rest))
				found = found || err == nil
			}
		}
		if !found {
			t.Errorf("nothing mounts %s", path)
		}
	}
	if !strings.Contains(pages.Read(t, "deploy/grafana/provisioning/dashboards/fob.yml"), "path: /etc/fob/boards\n") {
		t.Error("Grafana looks for boards elsewhere")
	}
}

// TestPrometheus: the real Prometheus scrapes a dispatcher for which everything goes
// wrong that there is an alert for. Each query of the rules and of the board finds
// something.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	r := boot(t, "FOB_POOL=python=1,node=0", "FOB_POOL_MAX=1", "FOB_MAX_SANDBOXES=4", "FOB_TAKEOVER_AFTER=0")
	broken := boot(t)
	standby := bootUnready(t, "FOB_DATA="+r.Data, "FOB_STANDBY=true", "FOB_TAKEOVER_AFTER=0")
	standby.awaitStandby()
	gone := filepath.Join(shortDir(t), "gone")
	holds := fmt.Sprintf("import os, time\ndef callme():\n    while not os.path.exists(%q): time.sleep(.05)\n", gone)
	ids := map[string]string{}
	register := func(name, query, code string) {
		t.Helper()
		var made struct{ ID string }
		answer := r.do("PUT", "/api/functions/"+name+query, code)
		if err := json.Unmarshal([]byte(answer.Body), &made); err != nil || answer.Status/100 != 2 {
			t.Fatalf("%s: %d %s", name, answer.Status, answer.Body)
		}
		ids[name] = made.ID
	}
	register("slow", "", "import time\ndef callme(): time.sleep(.06)\n")
	register("raises", "", "def callme(): return {}[1]\n")
	for i := range 4 {
		register(fmt.Sprintf("holds%d", i), "?max_scale=1&queue=0&timeout=5m", holds)
	}
	call := func(name string, status int) {
		t.Helper()
		if answer := r.do("GET", "/api/call/"+name, ""); answer.Status != status {
			t.Fatalf("a call of %s: %d %s, want %d", name, answer.Status, answer.Body, status)
		}
	}
	call("slow", 200)
	call("raises", 500)
	data := pastOf(t, ids["slow"], r.Addr())
	p := startPrometheus(t, data, r.Addr(), broken.Addr(), standby.Addr())
	for _, d := range []*dispatcher{r, broken, standby} {
		eventually(t, time.Minute, "Prometheus has scraped all", func() bool { return p.finds(fmt.Sprintf(`fob_standby{instance=%q}`, d.Addr())) == 1 })
	}
	eventually(t, time.Minute, "it has the functions", func() bool { return p.finds("fob:function_name") == len(ids) })

	standby.terminate()
	broken.gen("?name=warm", "def callme(): return 'a damaged record'")
	damage(t, filepath.Join(broken.Data, "fob.db"), "a damaged record", "a famaged record")
	broken.do("GET", "/api/cs/warm", "").wantsProblem(t, 503, "storage_failed")
	for range 20 {
		call("slow", 200)
		call("raises", 500)
	}
	register("slow", "", "import time\ndef callme(): time.sleep(.07)\n")
	for i, before := 0, r.metric(`fob_pool_dry_total{lang="python"}`); r.metric(`fob_pool_dry_total{lang="python"}`) < before+8; i++ {
		if i == 200 {
			t.Fatal("the pool never runs dry")
		}
		register(fmt.Sprintf("one%d", i), "", "def callme(): return 1\n")
	}
	var held sync.WaitGroup
	for i := range 4 {
		held.Go(func() { r.try("GET", fmt.Sprintf("/api/call/holds%d", i), "") })
	}
	t.Cleanup(func() {
		os.WriteFile(gone, nil, 0o600)
		held.Wait()
	})
	eventually(t, time.Minute, "all sandboxes are busy", func() bool { return r.metric(`fob_sandboxes{state="busy"}`) == 4 })
	for range 3 {
		call("holds0", 429)
		call("raises", 503)
	}
	if text := promtool(t, r.do("GET", "/metrics", "").Body, "check", "metrics"); text != "" {
		t.Error(text)
	}
	if n := p.finds(fmt.Sprintf(`{function=%q, __name__=~"fob_.*"}`, ids["raises"])); n > 30 {
		t.Errorf("a function makes %d series", n)
	}
	rules := p.rules()
	if len(rules) < 11 {
		t.Errorf("Prometheus has the rules %v", rules)
	}
	for name, query := range rules {
		eventually(t, time.Minute, name+" is not empty: "+query, func() bool { return p.finds(query) > 0 })
	}
	for _, query := range boardQueries(t) {
		eventually(t, time.Minute, "there is something to draw for "+query, func() bool { return p.finds(query) > 0 })
	}
	p.rules()
}

// pastOf returns a folder for Prometheus that has a day of a function's past, in which
// its calls were fast, and of a dispatcher's disk, which was emptier.
func pastOf(t *testing.T, function, instance string) string {
	t.Helper()
	folder := t.TempDir()
	var text strings.Builder
	for _, series := range []struct {
		name, labels string
		value        float64
	}{
		{"fob:run_seconds:p95_15m", fmt.Sprintf("{function=%q}", function), .01},
		{"fob_data_free_bytes", fmt.Sprintf("{instance=%q,job=\"fob\"}", instance), 1e15},
	} {
		fmt.Fprintf(&text, "# TYPE %s gauge\n", series.name)
		for ago := 24 * time.Hour; ago >= 4*time.Hour; ago -= 10 * time.Minute {
			fmt.Fprintf(&text, "%s%s %g %d\n", series.name, series.labels, series.value, time.Now().Add(-ago).Unix())
		}
	}
	text.WriteString("# EOF\n")
	file, data := filepath.Join(folder, "past"), filepath.Join(folder, "data")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "", "tsdb", "create-blocks-from", "openmetrics", file, data)
	return data
}
