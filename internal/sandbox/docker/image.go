package docker

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	buildtypes "github.com/docker/docker/api/types/build"
	"github.com/docker/docker/client"
	"github.com/rs/zerolog"
	"golang.org/x/sync/semaphore"

	"github.com/flockofbirds/fob/drivers"
	"github.com/flockofbirds/fob/internal/sandbox"
)

// A build is the driver image of one language.
type build struct {
	lang  string
	image string              // NAME:TAG, derived from its content
	turn  *semaphore.Weighted // a lock; ctx can end the wait for it

	// id is the engine's ID of the image that was found or built, or empty until then.
	// turn guards it. Sandboxes are made by ID, because somebody else may give the name
	// to another image.
	id string
}

// labelImage tells images that we built from others that somebody gave the same name.
// Its value is the name.
const labelImage = "fob.image"

// quiet bounds how long a running build goes without a line in the log.
const quiet = 3 * time.Second

// images are the driver images. They are built when they are missing.
type images struct {
	api  *client.Client
	log  zerolog.Logger
	base string            // on which they are built
	of   map[string]*build // by language; the keys never change
}

func newImages(api *client.Client, log zerolog.Logger, base string) (*images, error) {
	if base == "" {
		return nil, errors.New("there is no base image for drivers: set FOB_BASE_IMAGE, for example to debian:trixie-slim")
	}
	all := map[string]*build{}
	for _, lang := range drivers.Langs() {
		all[lang] = &build{
			lang:  lang,
			image: "fob-" + lang + ":" + drivers.Digest(lang, base),
			turn:  semaphore.NewWeighted(1),
		}
	}
	return &images{api: api, log: log, base: base, of: all}, nil
}

// Prepare implements sandbox.Engine. It builds the driver images that are missing.
func (e *Engine) Prepare(ctx context.Context, langs ...string) error {
	for _, lang := range langs {
		if _, err := e.images.id(ctx, lang); err != nil {
			return err
		}
	}
	return nil
}

// id returns the ID of a language's driver image. It builds the image if need be, and
// waits if somebody else is building it.
func (m *images) id(ctx context.Context, lang string) (string, error) {
	b := m.of[lang]
	if b == nil {
		return "", fmt.Errorf("there is no driver for the language %q: use one of %s", lang, strings.Join(drivers.Langs(), ", "))
	}
	if err := b.turn.Acquire(ctx, 1); err != nil {
		return "", err
	}
	defer b.turn.Release(1)
	if b.id != "" {
		return b.id, nil
	}
	id, err := m.find(ctx, b)
	if err == nil && id != "" {
		rebased, rebasedErr := m.rebased(ctx, id)
		if err = rebasedErr; rebased {
			m.log.Info().Str("image", b.image).Str("base", m.base).Msg("the base image is another one than the " + b.lang + " driver image was built from, which is built again")
			id = ""
		}
	}
	if err == nil && id == "" {
		if err = m.build(ctx, b); err == nil {
			id, err = m.find(ctx, b)
		}
		if err == nil && id == "" {
			err = fmt.Errorf("the image %s was built, and somebody removed it at once", b.image)
		}
	}
	if err != nil {
		return "", err
	}
	b.id = id
	return id, nil
}

// find returns the ID of a driver image that we built, or "" if there is none.
func (m *images) find(ctx context.Context, b *build) (id string, err error) {
	found, err := m.api.ImageInspect(ctx, b.image)
	switch {
	case errdefs.IsNotFound(err):
		return "", nil
	case err != nil:
		return "", fault("looking for the image "+b.image, err)
	case found.Config == nil || found.Config.Labels[labelImage] != b.image:
		m.log.Warn().Str("image", b.image).Str("id", found.ID).Msg("somebody gave a driver image's name to another image: it is built again")
		return "", nil
	}
	return found.ID, nil
}

// rebased reports whether the base image's name now stands for other layers than those
// on which a driver image was built. If the base image is no longer there, it reports
// false.
func (m *images) rebased(ctx context.Context, id string) (bool, error) {
	base, err := m.api.ImageInspect(ctx, m.base)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fault("looking for the base image "+m.base, err)
	}
	built, err := m.api.ImageInspect(ctx, id)
	if errdefs.IsNotFound(err) {
		return true, nil // it has just gone
	}
	if err != nil {
		return false, fault("looking for the image "+id, err)
	}
	from := base.RootFS.Layers
	return len(from) > len(built.RootFS.Layers) || !slices.Equal(from, built.RootFS.Layers[:len(from)]), nil
}

// lost reports whether err says that a container could not be created because its image
// is gone. If so, it forgets the image.
func (m *images) lost(ctx context.Context, lang string, err error) bool {
	if !errdefs.IsNotFound(err) || !strings.Contains(strings.ToLower(err.Error()), "no such image") {
		return false
	}
	b := m.of[lang]
	if b.turn.Acquire(ctx, 1) != nil {
		return false
	}
	defer b.turn.Release(1)
	if b.id != "" {
		m.log.Warn().Str("image", b.image).Msg("somebody removed the " + b.lang + " driver image: it is built again if need be")
		b.id = ""
	}
	return true
}

// build builds a driver image with the engine's built-in builder, which every engine
// has.
func (m *images) build(ctx context.Context, b *build) error {
	begin := time.Now()
	source, err := pack(b.lang)
	if err != nil {
		return fmt.Errorf("packing the %s driver: %w", b.lang, err)
	}
	log := m.log.With().Str("image", b.image).Logger()
	log.Info().Str("base", m.base).Msg("building the " + b.lang + " driver image; it is kept for next time")
	response, err := m.api.ImageBuild(ctx, source, buildtypes.ImageBuildOptions{
		Version:     buildtypes.BuilderV1,
		Tags:        []string{b.image},
		BuildArgs:   buildArgs(m.base, os.Getenv),
		Labels:      map[string]string{"fob.driver": b.lang, labelImage: b.image},
		Remove:      true,
		ForceRemove: true,
	})
	if err != nil {
		return fault("building the image "+b.image, err)
	}
	defer response.Body.Close()
	output := &output{report: func(line string) {
		log.Info().Dur("ms", time.Since(begin)).Msg(line)
	}}
	stopTalking := output.keepTalking()
	err = output.read(response.Body)
	stopTalking()
	if ctx.Err() != nil {
		return fmt.Errorf("building the image %s: %w", b.image, ctx.Err())
	}
	if err != nil {
		return m.explain(b, err, output.step, output.last)
	}
	log.Info().Dur("ms", time.Since(begin)).Msg("the " + b.lang + " driver image is built")
	return nil
}

// buildArgs returns the base image and our own proxy settings: if we need a proxy, a
// build that fetches packages does, too. The engine knows these arguments and leaves
// them out of the image. Programs differ in which spelling they read.
func buildArgs(base string, getenv func(string) string) map[string]*string {
	args := map[string]*string{"BASE": &base}
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY"} {
		lower := strings.ToLower(name)
		if value := cmp.Or(getenv(lower), getenv(name)); value != "" {
			args[name], args[lower] = &value, &value
		}
	}
	return args
}

// explain says why a build failed and what to do.
func (m *images) explain(b *build, err error, step string, last []string) error {
	var refused buildError
	if !errors.As(err, &refused) {
		return fmt.Errorf("building the image %s: %w: the engine broke off: %w", b.image, sandbox.ErrNoEngine, err)
	}
	advice := "the build needs the network, for the distribution's packages"
	if strings.Contains(step, " : FROM ") {
		advice = fmt.Sprintf("the base image %s is not here and cannot be pulled: set FOB_BASE_IMAGE to one that can, or import one of that name (docker import, docker load)", m.base)
	}
	return fmt.Errorf("building the image %s: %w; %s; the end of the output: %s", b.image, err, advice, strings.Join(last, " | "))
}

// pack makes the build context of a driver from its embedded files, which include its
// Dockerfile.
func pack(lang string) (io.Reader, error) {
	files, err := drivers.Files(lang)
	if err != nil {
		return nil, err
	}
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	err = fs.WalkDir(files, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(files, path)
		if err != nil {
			return err
		}
		// Embedded files have no useful mode.
		header := &tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: 0o644, Size: int64(len(content))}
		if err := w.WriteHeader(header); err != nil {
			return err
		}
		_, err = w.Write(content)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &packed, w.Close()
}

// buildError is an error that the builder reported.
type buildError string

func (e buildError) Error() string { return string(e) }

// output reads what a build prints.
type output struct {
	report func(line string)

	mu     sync.Mutex
	step   string // the step at which the build is
	last   []string
	spoken time.Time // when a line was last logged
}

// read reads the engine's stream of JSON messages to its end.
func (o *output) read(stream io.Reader) error {
	messages := json.NewDecoder(stream)
	for {
		var m struct {
			Stream string `json:"stream"`
			Status string `json:"status"`
			ID     string `json:"id"`
			Error  string `json:"error"`
		}
		err := messages.Decode(&m)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if m.Error != "" {
			return buildError(m.Error)
		}
		for line := range strings.Lines(m.Stream + strings.TrimSpace(m.ID+" "+m.Status)) {
			o.line(strings.TrimSpace(line))
		}
	}
}

func (o *output) line(line string) {
	if line == "" {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.last) == tailLines {
		o.last = slices.Delete(o.last, 0, 1)
	}
	o.last = append(o.last, line)
	isStep := strings.HasPrefix(line, "Step ")
	if isStep {
		o.step = line
	}
	if isStep || time.Since(o.spoken) > quiet {
		o.spoken = time.Now()
		o.report(line)
	}
}

// keepTalking logs the last line again whenever nothing new has come for a while, until
// stop is called.
func (o *output) keepTalking() (stop func()) {
	quit := make(chan struct{})
	var talking sync.WaitGroup
	talking.Go(func() {
		tick := time.NewTicker(quiet)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
			}
			o.mu.Lock()
			if len(o.last) > 0 && time.Since(o.spoken) > quiet {
				o.spoken = time.Now()
				o.report("still at: " + o.last[len(o.last)-1])
			}
			o.mu.Unlock()
		}
	})
	return func() { close(quit); talking.Wait() }
}
