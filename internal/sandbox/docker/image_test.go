package docker

import (
	"maps"
	"slices"
	"testing"
)

func TestBuildArgs(t *testing.T) {
	environ := map[string]string{"HTTP_PROXY": "http://a:1", "https_proxy": "http://b:2", "NO_PROXY": "x", "no_proxy": "y", "PATH": "/bin"}
	got := buildArgs("base", func(name string) string { return environ[name] })
	want := map[string]string{"BASE": "base", "HTTP_PROXY": "http://a:1", "http_proxy": "http://a:1", "HTTPS_PROXY": "http://b:2", "https_proxy": "http://b:2", "NO_PROXY": "y", "no_proxy": "y"}
	if !slices.Equal(slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want))) {
		t.Errorf("there are %v", slices.Sorted(maps.Keys(got)))
	}
	for name, value := range want {
		if got[name] == nil || *got[name] != value {
			t.Errorf("%s is %v, want %s", name, got[name], value)
		}
	}
}
