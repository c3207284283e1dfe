// Package api is the contract of the HTTP API: its OpenAPI description, and the JSON
// documents of requests and answers as types. The server, the commands and the tests
// share them.
package api

import _ "embed"

// OpenAPI is openapi.yaml.
//
//go:embed openapi.yaml
var OpenAPI []byte
