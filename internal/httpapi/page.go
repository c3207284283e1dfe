package httpapi

import (
	"strconv"

	"github.com/flockofbirds/fob/internal/faas"
)

// How many items of a list a page has by default, and at most.
const (
	defaultPage = 100
	maxPage     = 1000
)

// readPage reads which part of a list a query asks for.
func readPage(given map[string]string) (after string, limit int, err error) {
	limit = defaultPage
	if text, ok := given["limit"]; ok {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > maxPage {
			return "", 0, faas.Errorf(faas.CodeBadRequest, "limit is a number from 1 to %d", maxPage)
		}
	}
	return given["after"], limit, nil
}
