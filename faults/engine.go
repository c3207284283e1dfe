package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
)

// engine is a client of a Docker engine, with as much of its API as the rows need.
type engine struct {
	host   string // in the form of DOCKER_HOST
	client *http.Client
}

// engineOfEnvironment returns the engine that DOCKER_HOST names, or the machine's.
func engineOfEnvironment() (*engine, error) {
	host := os.Getenv("DOCKER_HOST")
	if host == "" {
		host = "unix:///var/run/docker.sock"
	}
	path, is := strings.CutPrefix(host, "unix://")
	if !is {
		return nil, fmt.Errorf("DOCKER_HOST=%s: the engine must be this machine's, on a Unix socket", host)
	}
	e := newEngine(path)
	if _, err := e.ask("GET", "/version", nil); err != nil {
		return nil, fmt.Errorf("no Docker engine answers (make run brings one up): %w", err)
	}
	return e, nil
}

func newEngine(socket string) *engine {
	return &engine{host: "unix://" + socket, client: &http.Client{Timeout: 5 * time.Minute, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}}
}

// ask makes a request. It must succeed.
func (e *engine) ask(method, path string, body io.Reader) ([]byte, error) {
	request, err := http.NewRequest(method, "http://engine"+path, body)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/x-tar") // only archives are sent
	response, err := e.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode/100 != 2 {
		err = fmt.Errorf("the engine: %s %s: %s: %s", method, path, response.Status, text)
	}
	return text, err
}

// imageName returns the name of the image that has this ID, or "".
func (e *engine) imageName(id string) string {
	var image struct{ RepoTags []string }
	text, err := e.ask("GET", "/images/"+id+"/json", nil)
	if err != nil || json.Unmarshal(text, &image) != nil || len(image.RepoTags) == 0 {
		return ""
	}
	return image.RepoTags[0]
}

// container is a container in the engine's list.
type container struct {
	ID     string `json:"Id"`
	Image  string
	State  string
	Labels map[string]string
}

// ids returns the IDs in a list of containers.
func ids(list []byte) (all []string) {
	var containers []container
	if err := json.Unmarshal(list, &containers); err != nil {
		return nil
	}
	for _, c := range containers {
		all = append(all, c.ID)
	}
	return all
}

func filter(aviary string) string {
	return "filters=" + url.QueryEscape(`{"label":["fob.aviary=`+aviary+`"]}`)
}

// containers returns an aviary's containers, including dead ones.
func (e *engine) containers(aviary string) ([]container, error) {
	text, err := e.ask("GET", "/containers/json?all=1&"+filter(aviary), nil)
	if err != nil {
		return nil, err
	}
	var all []container
	return all, json.Unmarshal(text, &all)
}

// sandboxes returns the IDs of an aviary's sandboxes, sorted.
func (e *engine) sandboxes(aviary string) ([]string, error) {
	all, err := e.containers(aviary)
	var ids []string
	for _, c := range all {
		ids = append(ids, c.Labels["fob.sandbox"])
	}
	slices.Sort(ids)
	return ids, err
}

// clear removes everything that belongs to an aviary. Meanwhile something may still
// come up that a killed dispatcher had asked the engine for.
func (e *engine) clear(aviary string) error {
	deadline := time.Now().Add(time.Minute)
	for {
		all, err := e.containers(aviary)
		if err == nil && len(all) == 0 {
			break
		}
		for _, c := range all {
			e.ask("DELETE", "/containers/"+c.ID+"?force=1&v=1", nil) // failures are tried again
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("containers of %s cannot be removed: %v", aviary, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	text, err := e.ask("GET", "/networks?"+filter(aviary), nil)
	if err != nil {
		return err
	}
	var networks []struct {
		ID string `json:"Id"`
	}
	if err := json.Unmarshal(text, &networks); err != nil {
		return err
	}
	for _, n := range networks {
		// Docker 20.10 may miscount a network's endpoints if its client is killed while
		// a container starts. Such a network goes when the engine restarts.
		if _, err := e.ask("DELETE", "/networks/"+n.ID, nil); err != nil {
			progress("a network is left: %v", err)
		}
	}
	// The mark of a killed dispatcher.
	if text, err = e.ask("GET", "/volumes?"+filter(aviary), nil); err != nil {
		return err
	}
	var marks struct{ Volumes []struct{ Name string } }
	if err := json.Unmarshal(text, &marks); err != nil {
		return err
	}
	for _, m := range marks.Volumes {
		if _, err := e.ask("DELETE", "/volumes/"+m.Name, nil); err != nil {
			return err
		}
	}
	return nil
}

// copyImages copies images from one engine to another.
func copyImages(from, to *engine, names ...string) error {
	query := url.Values{"names": names}
	request, err := http.NewRequest("GET", "http://engine/images/get?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	response, err := from.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(response.Body)
		return fmt.Errorf("the engine: saving %v: %s: %s", names, response.Status, text)
	}
	text, err := to.ask("POST", "/images/load?quiet=1", response.Body)
	if err == nil && bytes.Contains(text, []byte(`"error"`)) {
		err = fmt.Errorf("the engine: loading %v: %s", names, text)
	}
	return err
}
