package httpapi

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/flockofbirds/fob/internal/faas"
)

// CallPrefix is how the paths of calls begin. A ref follows, and perhaps more.
const CallPrefix = "/api/call/"

// cutCall cuts a call's path behind the ref: root is CallPrefix and the ref, as
// they were sent; below begins with a slash, or is empty. Everybody who asks what
// a path calls asks here, so that no two of us see different functions in it.
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

// sentPath is the path by which requests are routed: escaped as it was sent,
// where that makes a difference.
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
		// What there is of the path is still escaped then.
		var err error
		if text, err = url.PathUnescape(text); err != nil {
			return faas.Ref{}, faas.Errorf(faas.CodeBadRequest, "the path is not properly percent-encoded")
		}
	}
	return faas.ParseRef(text)
}

// place says where a call goes: which part of the path names the function, and which
// is the function's.
//
// Dot segments are refused, escaped ones too. We would not resolve them, but a
// proxy in front may have, and then it let another function be called than this.
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
