package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// bare is a base image on which no driver image can be built.
const bare = "fob-faults-bare:latest"

// images takes driver images and disk space away from an engine of our own.
func images(t *trial) error {
	o, err := t.startOwn()
	if err != nil {
		return err
	}
	d, err := t.prepare(t.program, "m", "DOCKER_HOST="+o.host, "FOB_POOL=python=0,node=0")
	if err != nil {
		return err
	}
	defer d.remove(o.engine)
	if err := d.boot(); err != nil {
		return err
	}
	if err := d.Put("old?min_scale=1&concurrency=20", "def callme(): return 'old'"); err != nil {
		return err
	}
	// broken checks that a change is refused, that the log says why, and that existing
	// sandboxes go on; and then that everything works again.
	calls := 0
	codes := map[string]string{"python": "def callme(): return 'new'", "node": "function callme() { return 'new' }"}
	broken := func(what, lang, word string, mend func() error) error {
		progress("images: %s", what)
		steady := d.steadily("/api/call/old", 20*time.Millisecond, ok)
		a, err := d.Do("PUT", "/api/functions/old?min_scale=1&concurrency=20&lang="+lang, codes[lang])
		t.history.note("put", "what", what, "status", a.Status, "body", a.Body, "error", err)
		if !refused(a, err) {
			t.violate("%s: a new version is answered %d %s, %v", what, a.Status, a.Body, err)
		}
		// The log line may come after the answer.
		if err := d.Await(5*time.Second, fmt.Sprintf("the log says %q", word), func() bool { return strings.Contains(d.Log.String(), word) }); err != nil {
			t.violate("%s: %v", what, err)
		}
		if mend != nil {
			if err := mend(); err != nil {
				return errors.Join(err, fmt.Errorf("%d", steady.stop(what)))
			}
			if err := d.Await(reconcilePatience, "a function can be registered", func() bool {
				return ok(d.Do("PUT", "/api/functions/again?idle_timeout=100ms&lang="+lang, codes[lang])) || ok(d.Do("GET", "/api/call/again", ""))
			}); err != nil {
				t.violate("%s: %v", what, err)
			}
			if err := d.Delete("again"); err != nil {
				t.violate("%s: %v", what, err)
			}
		}
		calls += steady.stop(what)
		if text, err := d.Call("old"); err != nil || text != `{"result": "old"}` {
			t.violate("%s: the old version answers %s, %v", what, text, err)
		}
		return nil
	}

	// Delete the image of a language that has no sandbox. An image in use would only
	// lose its name, and further sandboxes would still be made from it.
	node := slices.IndexFunc(o.images, func(name string) bool { return strings.HasPrefix(name, "fob-node") })
	if _, err := o.ask("DELETE", "/images/"+o.images[node]+"?force=1", nil); err != nil {
		return err
	}
	// The engine has no base image, and no network to pull one.
	if err := broken("the image is deleted", "node", "set FOB_BASE_IMAGE", func() error {
		return copyImages(t.engine, o.engine, o.images[node])
	}); err != nil {
		return err
	}

	empty, err := o.fill()
	if err != nil {
		return err
	}
	if err := broken("the engine has no space", "python", "no space left on device", empty); err != nil {
		return err
	}

	// At its next start the dispatcher has a base image on which drivers cannot be
	// built.
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	if err := errors.Join(w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "etc/", Mode: 0o755}), w.Close()); err != nil {
		return err
	}
	repository, tag, _ := strings.Cut(bare, ":")
	if _, err := o.ask("POST", "/images/create?"+url.Values{"fromSrc": {"-"}, "repo": {repository}, "tag": {tag}}.Encode(), &packed); err != nil {
		return err
	}
	if err := d.stop(); err != nil {
		return err
	}
	if err := d.start("FOB_BASE_IMAGE=" + bare); err != nil {
		return err
	}
	if err := d.Await(reconcilePatience, "the old version serves", func() bool { return ok(d.Do("GET", "/api/call/old", "")) }); err != nil {
		return err
	}
	if err := d.Await(reconcilePatience, "the log says that no image can be built", func() bool { return strings.Contains(d.Log.String(), "sandboxes cannot be made yet") }); err != nil {
		return err
	}
	if a, err := d.Do("GET", "/readyz", ""); !refused(a, err) || !strings.Contains(a.Body, "driver images could not be prepared") {
		t.violate("without driver images /readyz answers %d %s, %v", a.Status, a.Body, err)
	}
	if err := broken("the image cannot be built", "python", "building the image fob-", nil); err != nil {
		return err
	}
	t.figure("%d calls of the old version meanwhile", calls)
	return d.stop()
}
