package faas

import (
	"cmp"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// Place is a function's place in the order of creation. It does not depend on the
// function being there, so a list can continue after one that was deleted.
type Place struct {
	Created int64 // in nanoseconds since 1970
	ID      string
}

// Place returns the function's place.
func (f *Function) Place() Place { return Place{f.Created.UnixNano(), f.ID} }

// Compare returns a negative number if p comes before other, a positive one if it comes
// after, and 0 if they are the same.
func (p Place) Compare(other Place) int {
	return cmp.Or(cmp.Compare(p.Created, other.Created), cmp.Compare(p.ID, other.ID))
}

// String returns the place in the form that ParsePlace reads.
func (p Place) String() string { return strconv.FormatInt(p.Created, 36) + "-" + p.ID }

// ParsePlace reads a place, or the ID of a function that find knows. For anything else
// it fails with CodeBadRequest.
func ParsePlace(text string, find func(id string) *Function) (Place, error) {
	created, id, ok := strings.Cut(text, "-")
	if ok && len(id) == 36 && uuid.Validate(id) == nil {
		if at, err := strconv.ParseInt(created, 36, 64); err == nil {
			return Place{at, id}, nil
		}
	}
	if fn := find(text); fn != nil {
		return fn.Place(), nil
	}
	return Place{}, Errorf(CodeBadRequest, "a list cannot begin at %.80q: set after to what the page before has as next, or begin again", text)
}
