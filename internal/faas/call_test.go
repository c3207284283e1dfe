package faas

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestInvocationIsWritten: an invocation that was written down and read is the same,
// but for the grants of who asks.
func TestInvocationIsWritten(t *testing.T) {
	whole := Invocation{
		ID: "c1", From: "192.0.2.1:5", Args: []byte(`{"a": "1"}`), Body: []byte("\x00\xff"), Timeout: time.Second, TraceParent: "00-1-2-00", TraceState: "a=1", ParentSpan: "3",
		Method: "PUT", Target: "/api/call/x/y?z", Root: "/api/call/x", Below: "/y", Host: "h", Header: http.Header{"A": {"b", "c"}},
	}
	for i := range reflect.TypeFor[Invocation]().NumField() {
		if f := reflect.TypeFor[Invocation]().Field(i); f.Name != "Ref" && f.Name != "Who" && reflect.ValueOf(whole).Field(i).IsZero() {
			t.Errorf("the test has no %s", f.Name)
		}
	}
	callers := map[string]Caller{
		"anonymous": {}, "local": {Kind: CallerLocal}, "sandbox 0a": {Kind: CallerSandbox, Sandbox: "0a"},
		"token 0b (ann)": {Kind: CallerToken, Token: &Token{ID: "0b", Name: "ann"}},
	}
	refs := []Ref{{Name: "hello"}, {Name: "hello", Version: 3}, {Name: "hello", Alias: "live"}, {ID: "7e3d1b90-54a1-4c5e-8f3a-0d9b6c2e1f00"}}
	for name, who := range callers {
		for _, ref := range refs {
			want := whole
			want.Ref, want.Who = ref, who
			text, err := json.Marshal(want)
			if err != nil {
				t.Fatal(err)
			}
			var got Invocation
			if err := json.Unmarshal(text, &got); err != nil || !reflect.DeepEqual(got, want) || got.Who.String() != name {
				t.Errorf("%s was read as %+v, %v", text, got, err)
			}
		}
	}
	for _, text := range []string{`{"who": "somebody"}`, `{"ref": ""}`} {
		if err := json.Unmarshal([]byte(text), new(Invocation)); err == nil {
			t.Errorf("%s was read", text)
		}
	}
}

// TestStack: the first layer is the outermost.
func TestStack(t *testing.T) {
	var order []string
	layer := func(name string) Middleware {
		return func(next Invoker) Invoker {
			return invokes(func() (Result, error) {
				order = append(order, name)
				return next.Invoke(t.Context(), nil, nil)
			})
		}
	}
	end := invokes(func() (Result, error) { return Result{Status: 200}, nil })
	if r, err := Stack(end, layer("a"), layer("b"), layer("c")).Invoke(t.Context(), nil, nil); err != nil || r.Status != 200 || strings.Join(order, "") != "abc" {
		t.Errorf("%v, %v, in the order %v", r, err, order)
	}
}

type invokes func() (Result, error)

func (f invokes) Invoke(context.Context, *Invocation, LiveBody) (Result, error) { return f() }
