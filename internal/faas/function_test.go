package faas

import (
	"errors"
	"fmt"
	"slices"
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
		if versions > 0 && (fn.Aliases[Live] != versions || fn.Live().Number != versions || fn.Latest() != fn.Live().Number) {
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

func TestHas(t *testing.T) {
	fn := &Function{Versions: []int{2, 3, 7}}
	for n := -1; n < 9; n++ {
		if want := n == 2 || n == 3 || n == 7; fn.Has(n) != want {
			t.Errorf("version %d: got %t", n, fn.Has(n))
		}
	}
	less := fn.Without([]int{3, 7, 9})
	if len(fn.Versions) != 3 || len(less.Versions) != 1 || !less.Has(2) {
		t.Errorf("%v without some is %v", fn.Versions, less.Versions)
	}
	if key := (&Version{FunctionID: testID, Number: 7}).Key(); key != (VersionKey{testID, 7}) {
		t.Errorf("got %v", key)
	}
}

func TestSurplus(t *testing.T) {
	for _, c := range []struct {
		versions []int
		keep     int
		aliases  map[string]int
		want     []int
	}{
		{[]int{1}, 1, nil, nil},
		{[]int{1, 2, 3}, 3, nil, nil},
		{[]int{1, 2, 3}, 50, nil, nil},
		{[]int{1, 2, 3}, 2, nil, []int{1}},
		{[]int{1, 2, 3}, 1, nil, []int{1, 2}},
		{[]int{1, 2, 3, 4, 9}, 2, map[string]int{"gold": 2, "blue": 9}, []int{1, 3}},
		{[]int{4, 7, 8}, 1, map[string]int{Live: 4}, []int{7}}, // live may be an older one
	} {
		fn := &Function{Versions: c.versions, Aliases: c.aliases, Current: &Version{Settings: Settings{KeepVersions: c.keep}}}
		if got := fn.Surplus(); !slices.Equal(got, c.want) {
			t.Errorf("of %v, keeping %d and %v, %v are surplus, want %v", c.versions, c.keep, c.aliases, got, c.want)
		}
	}
}

func TestUnknownVersion(t *testing.T) {
	fn := &Function{ID: testID, Versions: []int{1, 5, 6, 40, 41, 42, 91}, Current: &Version{Number: 91, Settings: DefaultSettings()}}
	for number, want := range map[int]string{
		3:  "function " + testID + " has no version 3 any more: it was dropped, for keep_versions is 50; there are 1, 5, 6, 40 to 42, 91",
		92: "function " + testID + " has no version 92; there are 1, 5, 6, 40 to 42, 91",
	} {
		if err := UnknownVersion(fn, number); err.Code != CodeUnknownFunction || err.Message != want {
			t.Errorf("version %d: %v", number, err)
		}
	}
	fn.Versions = nil
	for n := range 50 {
		fn.Versions = append(fn.Versions, 2*n+1)
	}
	if text := UnknownVersion(fn, 2).Message; !strings.HasSuffix(text, "there are …, 81, 83, 85, 87, 89, 91, 93, 95, 97, 99") {
		t.Error(text)
	}
}

func TestPlace(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6789, time.UTC)
	fn := &Function{ID: testID, Created: at}
	none := func(string) *Function { return nil }
	if place, err := ParsePlace(fn.Place().String(), none); err != nil || place != fn.Place() {
		t.Errorf("%s is read as %v, %v", fn.Place(), place, err)
	}
	if place, err := ParsePlace(testID, func(id string) *Function { return fn }); err != nil || place != fn.Place() {
		t.Errorf("the ID is read as %v, %v", place, err)
	}
	for _, text := range []string{testID, "x", "-", "-" + testID, "12-" + testID + "x", "!-" + testID, "zzzzzzzzzzzzzzzzzz-" + testID, testID + "-12"} {
		if place, err := ParsePlace(text, none); CodeOf(err) != CodeBadRequest {
			t.Errorf("%q is read as %v, %v", text, place, err)
		}
	}
	later := Place{fn.Place().Created + 1, "0"}
	if same := fn.Place(); same.Compare(same) != 0 || same.Compare(later) >= 0 || later.Compare(same) <= 0 || same.Compare(Place{same.Created, "0"}) <= 0 {
		t.Error("the order is another")
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
