package faas

import (
	"cmp"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// Place is a function's place in the order of creation. It says that by itself, so
// that a list can go on behind a function that is gone.
type Place struct {
	Created int64 // in nanoseconds since 1970
	ID      string
}

// Place returns the function's place.
func (f *Function) Place() Place { return Place{f.Created.UnixNano(), f.ID} }

// Compare returns less than 0 when p comes before other, 0 when they are the same,
// and else more.
func (p Place) Compare(other Place) int {
	return cmp.Or(cmp.Compare(p.Created, other.Created), cmp.Compare(p.ID, other.ID))
}

// String returns the place as ParsePlace reads it.
func (p Place) String() string { return strconv.FormatInt(p.Created, 36) + "-" + p.ID }

// ParsePlace reads a place, or the ID of a function that find knows. Anything else
// is CodeBadRequest.
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
	return Place{}, Errorf(CodeBadRequest, "%.80q is not where a list can begin: give as after what the page before has as next, or begin again", text)
}
