// Package web is the page that the dispatcher shows in a browser. The sources in src
// give the bundle in dist: npm ci && npm run build.
package web

import _ "embed"

// Index is the page's HTML. {{nonce}} in it stands for the nonce of the page's content
// security policy.
//
//go:embed src/index.html
var Index string

// Script, Style and Icon are the files that Index refers to.
var (
	//go:embed dist/page.js
	Script []byte
	//go:embed dist/page.css
	Style []byte
	//go:embed src/icon.svg
	Icon []byte
)
