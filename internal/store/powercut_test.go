package store_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/flockofbirds/fob/internal/durable/powercut"
	"github.com/flockofbirds/fob/internal/faas"
	"github.com/flockofbirds/fob/internal/store"
)

// writerEnv makes the test binary the process that is traced: it names the
// database that this works on.
const writerEnv = "FOBTEST_STORE_WRITER"

const (
	writers      = 4
	writerRounds = 4
)

// writeMuch opens a store, has several writers create, extend and delete
// functions in it, and says what it begins to delete and what is acknowledged.
func writeMuch(path string) error {
	ctx := context.Background()
	s, err := store.Open(ctx, path, false)
	if err != nil {
		return err
	}
	aviary, err := s.Aviary(ctx)
	if err != nil {
		return err
	}
	fmt.Println("open", aviary)
	failed := make(chan error, writers)
	for n := range writers {
		go func() { failed <- write(ctx, s, n == 0) }()
	}
	for range writers {
		err = errors.Join(err, <-failed)
	}
	return errors.Join(err, s.Close())
}

// write does what writeMuch says of one writer. With large, the code of one version is
// stored in chunks.
func write(ctx context.Context, s *store.Store, large bool) error {
	for round := range writerRounds {
		fn, code := newFunction("f-" + uuid.NewString())
		if large && round == 1 {
			v := *fn.Live()
			v.Size = 800_000
			code = codeOf(&v)
			v.Digest = faas.Digest(code)
			fn.Current = &v
		}
		if err := s.CreateFunction(ctx, fn, code, hex.EncodeToString([]byte(fn.ID[:8]))); err != nil {
			return err
		}
		fmt.Println("stored", fn.ID, 1, fn.Name)
		fn, code = withVersion(fn)
		if err := s.AddVersion(ctx, fn, code, ""); err != nil {
			return err
		}
		fmt.Println("stored", fn.ID, 2, fn.Name)
		fn, code = withVersion(fn)
		if err := s.AddVersion(ctx, fn.Without([]int{1}), code, ""); err != nil {
			return err
		}
		fmt.Println("stored", fn.ID, 3, fn.Name)
		if round%3 == 1 {
			fmt.Println("deleting", fn.ID)
			if err := s.DeleteFunction(ctx, fn.ID); err != nil {
				return err
			}
			fmt.Println("deleted", fn.ID)
		}
	}
	return nil
}

func newFunction(name string) (*faas.Function, string) {
	return withVersion(&faas.Function{ID: uuid.NewString(), Name: name, Created: time.Now()})
}

// withVersion adds a version of a size of its own, now and then a large one, to
// a function.
func withVersion(fn *faas.Function) (*faas.Function, string) {
	size := 100 + rand.N(1000)
	if rand.N(5) == 0 {
		size = rand.N(40_000) + 100
	}
	v := &faas.Version{FunctionID: fn.ID, Number: fn.Latest() + 1, Lang: "python", Settings: faas.DefaultSettings(), Created: time.Now(), Size: size}
	code := codeOf(v)
	v.Digest = faas.Digest(code)
	return fn.With(v), code
}

// codeOf is the code of a version, which follows from the rest of it.
func codeOf(v *faas.Version) string {
	line := fmt.Sprintf("# %s %d\n", v.FunctionID, v.Number)
	return strings.Repeat(line, v.Size/len(line)+1)[:v.Size]
}

// acknowledged is what a writer has been heard to say.
type acknowledged struct {
	aviary   string
	versions map[string]int    // by function
	names    map[string]string // of these functions
	deleted  map[string]bool   // false: began, and may have happened
}

func (a *acknowledged) hear(line string) {
	var id, name string
	var version int
	switch {
	case scan(line, "open %s", &a.aviary):
	case scan(line, "stored %s %d %s", &id, &version, &name):
		a.versions[id], a.names[id] = version, name
	case scan(line, "deleting %s", &id):
		a.deleted[id] = false
	case scan(line, "deleted %s", &id):
		a.deleted[id] = true
	default:
		panic("the writer says " + line)
	}
}

// check opens what a power cut left, and holds it against what was acknowledged.
func (a *acknowledged) check(ctx context.Context, path string) error {
	s, err := store.Open(ctx, path, false)
	if err != nil {
		return fmt.Errorf("it does not open: %w", err)
	}
	err = errors.Join(a.compare(ctx, s), a.compareNames(ctx, s))
	// It can be written to, and what is written stays.
	added, code := newFunction("added")
	err = errors.Join(err, s.CreateFunction(ctx, added, code, ""), s.Close())
	if err != nil {
		return err
	}
	if s, err = store.Open(ctx, path, false); err != nil {
		return fmt.Errorf("it does not open again: %w", err)
	}
	if found, codeErr := s.Code(ctx, added.ID, 1); found != code {
		err = errors.Join(err, fmt.Errorf("what was written after the cut is gone (%v)", codeErr))
	}
	return errors.Join(err, a.compare(ctx, s), s.Close())
}

func (a *acknowledged) compare(ctx context.Context, s *store.Store) error {
	var all []error
	wrong := func(format string, args ...any) { all = append(all, fmt.Errorf(format, args...)) }
	if aviary, err := s.Aviary(ctx); err != nil || a.aviary != "" && aviary != a.aviary {
		wrong("the aviary is %q and was %q (%v)", aviary, a.aviary, err)
	}
	functions, err := s.Functions(ctx)
	if err != nil {
		return errors.Join(append(all, err)...)
	}
	byID := map[string]*faas.Function{}
	for _, fn := range functions {
		byID[fn.ID] = fn
		if fn.Has(1) == (fn.Latest() == 3) {
			wrong("%s has the versions %v", fn.ID, fn.Versions)
		}
		for _, number := range fn.Versions {
			v, err := s.Version(ctx, fn.ID, number)
			if err != nil {
				wrong("%s@%d is not there (%w)", fn.ID, number, err)
			} else if code, err := s.Code(ctx, fn.ID, number); code != codeOf(v) {
				wrong("the code of %s@%d is not what it was (%v)", fn.ID, number, err)
			}
		}
	}
	for id, version := range a.versions {
		fn := byID[id]
		gone, deleting := a.deleted[id]
		switch {
		case gone && fn != nil:
			wrong("function %s was deleted and is there", id)
		case fn == nil && !deleting:
			wrong("function %s was acknowledged and is lost", id)
		case fn != nil && fn.Latest() < version:
			wrong("version %d of %s was acknowledged, the last is %d", version, id, fn.Latest())
		}
	}
	notes, err := s.Sandboxes(ctx)
	if err != nil {
		wrong("%w", err)
	}
	for _, version := range notes {
		if byID[version.FunctionID] == nil {
			wrong("there is a sandbox of %s, which is not there", version.FunctionID)
		}
	}
	return errors.Join(all...)
}

// compareNames looks whether a function's name is taken, and a deleted one's is
// free: one of each will do, for this writes.
func (a *acknowledged) compareNames(ctx context.Context, s *store.Store) error {
	functions, err := s.Functions(ctx)
	if err != nil {
		return err
	}
	if len(functions) > 0 {
		name := functions[rand.N(len(functions))].Name
		other, code := newFunction(name)
		if err := s.CreateFunction(ctx, other, code, ""); faas.CodeOf(err) != faas.CodeNameTaken {
			return fmt.Errorf("the name %s of a function was free (%v)", name, err)
		}
	}
	for id, gone := range a.deleted {
		if gone {
			again, code := newFunction(a.names[id])
			if err := errors.Join(s.CreateFunction(ctx, again, code, ""), s.DeleteFunction(ctx, again.ID)); err != nil {
				return fmt.Errorf("the name of a deleted function is not free: %w", err)
			}
			break
		}
	}
	return nil
}

// cuts makes power cuts below a folder, and holds what each leaves against what
// the writers said until then.
func cuts(c *powercut.Cuts, folder string, seed uint64, more, from int) (int, error) {
	a := &acknowledged{versions: map[string]int{}, names: map[string]string{}, deleted: map[string]bool{}}
	return c.Telling(folder, seed, more, from, a.hear, func(root string) error {
		return a.check(context.Background(), filepath.Join(root, "data", "fob.db"))
	})
}

// TestPowerCut traces processes that initialise a data folder and write to it,
// and makes folders as power cuts might have left them.
func TestPowerCut(t *testing.T) {
	seed, more := setting(t, "FOBTEST_SEED", rand.Uint64()>>1), powercut.Depth(t, "FOBTEST_POWERCUT_ROUNDS", 50, 10)
	t.Logf("FOBTEST_SEED=%d FOBTEST_POWERCUT_ROUNDS=%d", seed, more)
	root := filepath.Join(t.TempDir(), "root")
	check(t, os.Mkdir(root, 0o700))
	p := &powercut.Cuts{Root: root}
	for range 2 {
		p.Traces = append(p.Traces, powercut.Trace(t, writerEnv+"="+filepath.Join(root, "data", "fob.db")))
	}
	done, err := cuts(p, memory(t), seed, int(more), 0)
	if err != nil {
		t.Error(err)
	}
	t.Logf("%d power cuts in %d and %d moments", done, len(p.Traces[0]), len(p.Traces[1]))

	// Who is killed before the folder is synced leaves that to the next one.
	p.Forget = func(trace int, n *powercut.Node) bool { return trace == 0 && n.IsFolder() && n.Has("fob.db") }
	if _, err := cuts(p, memory(t), seed, 0, 1); err != nil {
		t.Error("the first process did not sync its folder:", err)
	}
	// The model is worth something: it finds what is lost without syncs.
	for name, forget := range map[string]func(trace int, n *powercut.Node) bool{
		"without any sync":         func(int, *powercut.Node) bool { return true },
		"without syncs of files":   func(_ int, n *powercut.Node) bool { return !n.IsFolder() },
		"without syncs of folders": func(_ int, n *powercut.Node) bool { return n.IsFolder() },
	} {
		p.Forget = forget
		switch _, err := cuts(p, memory(t), seed, 0, 0); {
		case err == nil || strings.Contains(err.Error(), "replaying"):
			t.Errorf("%s nothing was lost (%v)", name, err)
		default:
			t.Logf("%s, as it should be: %v", name, err)
		}
	}
}

// memory is a folder that is quick to write to.
func memory(t *testing.T) string {
	t.Helper()
	return powercut.Memory(t)
}

// setting is a number from the environment.
func setting(t *testing.T, name string, unset uint64) uint64 {
	t.Helper()
	return powercut.Setting(t, name, unset)
}
