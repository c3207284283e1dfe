package httpapi

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/flockofbirds/fob/internal/faas"
)

// CallPrefix begins the paths of calls. A ref follows, and perhaps more.
const CallPrefix = "/api/call/"

// cutCall splits the path of a call after the ref. root is CallPrefix and the ref, as
// they were sent; below is empty or begins with a slash. Everybody who has to know what
// a path calls asks cutCall, so that no two parts of the program see different
// functions.
func cutCall(u *url.URL) (root, below string, is bool) {
	path := sentPath(u)
	if !strings.HasPrefix(path, CallPrefix) {
		return "", "", false
	}
	end := strings.IndexByte(path[len(CallPrefix):], '/')
	if end < 0 {
		end = len(path) - len(CallPrefix)
	}
	end += len(CallPrefix)
	return path[:end], path[end:], end > len(CallPrefix)
}

// sentPath returns the path by which requests are routed: as it was sent, with its
// escapes, if they make a difference.
func sentPath(u *url.URL) string {
	if u.RawPath != "" {
		return u.RawPath
	}
	return u.Path
}

// refOf reads the ref in a request's path.
func refOf(r *http.Request) (faas.Ref, error) {
	text := ""
	if root, _, is := cutCall(r.URL); is {
		text = root[len(CallPrefix):]
	} else {
		text = chi.URLParam(r, "ref")
	}
	if r.URL.RawPath != "" {
		// In that case the path is still escaped.
		var err error
		if text, err = url.PathUnescape(text); err != nil {
			return faas.Ref{}, faas.Errorf(faas.CodeBadRequest, "the path is not properly percent-encoded")
		}
	}
	return faas.ParseRef(text)
}

// place returns the part of the path that names the function, and the part that belongs
// to the function.
//
// It refuses dot segments, even if they are escaped. We would not resolve them, but a
// proxy in front of us may have, and then it may have allowed a call to another
// function.
func place(u *url.URL) (root, below string, err error) {
	root, below, _ = cutCall(u)
	if below == "" {
		return root, below, nil
	}
	for segment := range strings.SplitSeq(u.Path, "/") {
		if segment == "." || segment == ".." {
			return "", "", faas.Errorf(faas.CodeBadRequest, "the path has a segment %q: send it resolved", segment)
		}
	}
	return root, below, nil
}
