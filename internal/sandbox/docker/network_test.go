package docker_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	dockernet "github.com/docker/docker/api/types/network"

	"github.com/flockofbirds/fob/internal/sandbox/sandboxtest"
)

// A dispatcher that was killed while it asked for the network, and the one after
// it, may have got one each.
func TestDockerNetworkTwins(t *testing.T) {
	api := dockerClient(t)
	e, c := open(t)
	first := sandboxtest.Create(t, e, sandboxtest.Spec("python"))
	name := "fob-" + c.Aviary + "-egress"
	// The client would have the engine refuse this, as newer ones always do.
	response, err := api.HTTPClient().Post("http://engine/networks/create", "application/json", strings.NewReader(
		`{"Name": "`+name+`", "CheckDuplicate": false, "Labels": {"fob.aviary": "`+c.Aviary+`"}}`))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if text, err := io.ReadAll(response.Body); err != nil || response.StatusCode != http.StatusCreated && response.StatusCode != http.StatusConflict {
		t.Fatalf("%d %s, %v", response.StatusCode, text, err)
	}
	sandboxtest.Create(t, e, sandboxtest.Spec("python"))
	networks, err := api.NetworkList(t.Context(), dockernet.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	left := 0
	for _, network := range networks {
		if network.Name == name {
			left++
		}
	}
	if left != 1 {
		t.Errorf("there are %d networks %s", left, name)
	}
	if state := sandboxtest.State(t, first); state != "blank" {
		t.Errorf("the first is %q", state)
	}
}
