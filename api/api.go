// Package api is the contract of the HTTP API: its description, and the
// documents that requests and answers have as JSON. The server, the commands
// and the tests share them.
package api

import _ "embed"

// OpenAPI is openapi.yaml.
//
//go:embed openapi.yaml
var OpenAPI []byte
