package faas

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestWith(t *testing.T) {
	empty := &Function{ID: testID, Name: "hello"}
	one := empty.With(&Version{Number: 1})
	two := one.With(&Version{Number: 2})
	// Two changes on top of the same function do not meet.
	left, right := two.With(&Version{Number: 3, Lang: "python"}), two.With(&Version{Number: 3, Lang: "node"})

	for fn, versions := range map[*Function]int{empty: 0, one: 1, two: 2, left: 3, right: 3} {
		if len(fn.Versions) != versions || fn.ID != testID || fn.Name != "hello" {
			t.Errorf("got %+v, want %d versions", fn, versions)
		}
		if versions > 0 && (fn.Aliases[Live] != versions || fn.Live().Number != versions || fn.Latest() != fn.Live()) {
			t.Errorf("live is %d of %d versions", fn.Aliases[Live], versions)
		}
	}
	if left.Live().Lang != "python" || right.Live().Lang != "node" {
		t.Error("one change overwrote the other")
	}
	blue := *two
	blue.Aliases = map[string]int{Live: 1, "blue": 2}
	next := blue.With(&Version{Number: 3})
	if next.Aliases["blue"] != 2 || next.Aliases[Live] != 3 || blue.Aliases[Live] != 1 {
		t.Errorf("the aliases %v became %v", blue.Aliases, next.Aliases)
	}
}

func TestVersion(t *testing.T) {
	fn := &Function{Versions: []*Version{{Number: 2}, {Number: 3}, {Number: 7}}}
	for _, n := range []int{2, 3, 7} {
		if v := fn.Version(n); v == nil || v.Number != n {
			t.Errorf("version %d: got %v", n, v)
		}
	}
	for _, n := range []int{-1, 0, 1, 4, 8} {
		if v := fn.Version(n); v != nil {
			t.Errorf("version %d: got %v", n, v)
		}
	}
	if v := fn.Live(); v != nil {
		t.Errorf("live without the alias: got %v", v)
	}
	if key := (&Version{FunctionID: testID, Number: 7}).Key(); key != (VersionKey{testID, 7}) {
		t.Errorf("got %v", key)
	}
}

func TestCheckCode(t *testing.T) {
	for _, code := range []string{"x", "def callme():\n    return 'ä🐦'\n", "\n x", "\ufeffx", "\x1b[0m"} {
		if err := CheckCode(code); err != nil {
			t.Errorf("%q: %v", code, err)
		}
	}
	for _, code := range []string{"", " ", "\n\t \r\n", "\u00a0", "\xff", "x = '\xc3'", "\x7fELF\x00", "x\x00"} {
		if err := CheckCode(code); CodeOf(err) != CodeBadRequest {
			t.Errorf("%q: %v", code, err)
		}
	}
}

func TestError(t *testing.T) {
	cause := errors.New("disk full")
	err := fmt.Errorf("creating: %w", Errorf(CodeInternal, "could not store %s", "it").Because(cause).After(time.Second))
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Message != "could not store it" || e.RetryAfter != time.Second {
		t.Errorf("got %+v", e)
	}
	if !errors.Is(err, cause) || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("%v has lost its cause", err)
	}
	for err, want := range map[error]Code{
		nil:                      "",
		cause:                    CodeInternal,
		err:                      CodeInternal,
		Errorf(CodeTimeout, "x"): CodeTimeout,
		fmt.Errorf("y: %w", Errorf(CodeTimeout, "x")):             CodeTimeout,
		Errorf(CodeTimeout, "x").Because(Errorf(CodeRaised, "y")): CodeTimeout,
	} {
		if got := CodeOf(err); got != want {
			t.Errorf("the code of %v is %s, want %s", err, got, want)
		}
	}
}

// TestRetryable: what may have run must not be offered for another try.
func TestRetryable(t *testing.T) {
	for _, code := range []Code{CodeRaised, CodeBadResult, CodeSandboxDied, CodeBadAnswer, CodeTimeout, CodeInternal, CodeBadArguments} {
		if code.Retryable() {
			t.Errorf("%s is retryable", code)
		}
	}
	for _, code := range []Code{CodeOverLimit, CodeNoCapacity, CodeDraining, CodeStandby, CodeStarting, CodeConflict} {
		if !code.Retryable() {
			t.Errorf("%s is not retryable", code)
		}
	}
	for code, functions := range map[Code]bool{CodeRaised: true, CodeTimeout: true, CodeOverLimit: true, CodeInternal: false, CodeNoCapacity: false, CodeBadRequest: false} {
		if code.FunctionsFault() != functions {
			t.Errorf("%s is the function's fault: %v", code, !functions)
		}
	}
}
