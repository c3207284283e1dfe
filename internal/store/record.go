package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/flockofbirds/fob/internal/faas"
)

// schema is the version of how records are laid out. It is in every record and
// under keySchema. What this dispatcher does not know it refuses; what is older
// it migrates.
const schema = 3

// The keys. A function's versions stand apart from it, so that reading all
// functions at start reads no history, and code apart from versions, which share
// what is the same.
const (
	keySchema = "meta/schema" // "3"
	keyAviary = "meta/aviary" // 8 hexadecimal digits

	prefixFunction = "function/" // ID → functionRecord
	prefixName     = "name/"     // NAME → ID
	prefixVersion  = "version/"  // ID/VERSION → versionRecord
	prefixSandbox  = "sandbox/"  // ID → sandboxRecord
	prefixToken    = "token/"    // ID → tokenRecord

	// prefixCode is for ID/DIGEST → the code as it was registered. It stands
	// between the two keys that never change: bbolt has two records at least in a
	// page, and writes a page anew with all of it when one of them changes. Code
	// beside a function's record would be written with each of its changes.
	prefixCode = "meta/code/"
)

func functionKey(id string) string { return prefixFunction + id }
func nameKey(name string) string   { return prefixName + name }
func sandboxKey(id string) string  { return prefixSandbox + id }

// versionPrefix is that of all of a function's versions, codePrefix that of all of
// its code.
func versionPrefix(id string) string { return prefixVersion + id + "/" }
func codePrefix(id string) string    { return prefixCode + id + "/" }

func versionKey(id string, number int) string {
	return fmt.Sprintf("%s%08d", versionPrefix(id), number)
}

// codeKey is that of the code with a digest as Version.Digest has it.
func codeKey(id, digest string) string { return codePrefix(id) + strings.TrimPrefix(digest, "sha256:") }

// functionRecord is a function without its versions, but with what code each has:
// so one comparison tells which code is needed by none any more.
type functionRecord struct {
	Schema int `json:"schema"`
	*faas.Function
	Versions []keptVersion `json:"versions"` // instead of the function's own
}

type keptVersion struct {
	Number int    `json:"version"`
	Digest string `json:"digest"`
}

type versionRecord struct {
	Schema int `json:"schema"`
	*faas.Version
}

type sandboxRecord struct {
	Schema int `json:"schema"`
	faas.VersionKey
}

// encodeFunction returns the record of a function whose versions have that code.
func encodeFunction(fn *faas.Function, versions []keptVersion) ([]byte, error) {
	record := functionRecord{schema, fn, versions}
	if err := record.check(); err != nil {
		return nil, err
	}
	return json.Marshal(record)
}

// decodeFunction returns a function, which lacks its live version yet, and what its
// versions have for code.
func decodeFunction(e Entry) (*faas.Function, []keptVersion, error) {
	record := functionRecord{Function: &faas.Function{}}
	err := json.Unmarshal(e.Value, &record)
	if err == nil {
		err = checkSchema(record.Schema)
	}
	if err == nil {
		err = record.check()
	}
	if err == nil && functionKey(record.ID) != e.Key {
		err = fmt.Errorf("it is that of function %q", record.ID)
	}
	if err != nil {
		return nil, nil, badRecord(e.Key, err)
	}
	fn := record.Function
	fn.Versions = make([]int, len(record.Versions))
	for i, v := range record.Versions {
		fn.Versions[i] = v.Number
	}
	return fn, record.Versions, nil
}

// check makes sure that what others take for granted about a function is so: every
// alias, live among them, points to a version.
func (r *functionRecord) check() error {
	if r.Function == nil {
		return errors.New("it holds no function")
	}
	if r.ID == "" || strings.Contains(r.ID, "/") {
		return fmt.Errorf("%q is no function ID", r.ID)
	}
	if len(r.Versions) == 0 {
		return errors.New("the function has no version")
	}
	last := 0
	numbers := make(map[int]bool, len(r.Versions))
	for _, v := range r.Versions {
		if v.Number <= last {
			return errors.New("its versions are not in ascending order")
		}
		last = v.Number
		numbers[last] = true
	}
	if !numbers[r.Aliases[faas.Live]] {
		return errors.New("the alias live points to no version")
	}
	for alias, number := range r.Aliases {
		if !numbers[number] {
			return fmt.Errorf("the alias %q points to version %d, which is not there", alias, number)
		}
	}
	return nil
}

func encodeVersion(v *faas.Version) ([]byte, error) {
	return json.Marshal(versionRecord{schema, v})
}

func decodeVersion(e Entry) (*faas.Version, error) {
	record := versionRecord{Version: &faas.Version{}}
	err := json.Unmarshal(e.Value, &record)
	if err == nil {
		err = checkSchema(record.Schema)
	}
	if err == nil && (record.Version == nil || record.Number < 1 || versionKey(record.FunctionID, record.Number) != e.Key) {
		err = errors.New("it is that of another version")
	}
	if err != nil {
		return nil, badRecord(e.Key, err)
	}
	return record.Version, nil
}

func encodeSandbox(key faas.VersionKey) ([]byte, error) {
	return json.Marshal(sandboxRecord{schema, key})
}

func decodeSandbox(e Entry) (faas.VersionKey, error) {
	var record sandboxRecord
	err := json.Unmarshal(e.Value, &record)
	if err == nil {
		err = checkSchema(record.Schema)
	}
	if err == nil && (record.FunctionID == "" || record.Number < 1) {
		err = errors.New("it names no version")
	}
	if err != nil {
		return faas.VersionKey{}, badRecord(e.Key, err)
	}
	return record.VersionKey, nil
}

func checkSchema(found int) error {
	if found > schema {
		return fmt.Errorf("it has schema %d, this dispatcher knows up to %d: %w", found, schema, errNewer)
	}
	if found < 1 {
		return errors.New("it says no schema")
	}
	return nil
}

var aviaryPattern = regexp.MustCompile(`^[0-9a-f]{8}$`)

// checkAviary makes sure that it is a name of an aviary.
func checkAviary(e Entry) error {
	if !aviaryPattern.Match(e.Value) {
		return badRecord(e.Key, fmt.Errorf("%.80q is not 8 hexadecimal digits", e.Value))
	}
	return nil
}

// checkSchemaRecord makes sure that it is a schema that we know.
func checkSchemaRecord(e Entry) error {
	number, err := strconv.Atoi(string(e.Value))
	if err == nil {
		err = checkSchema(number)
	}
	if err != nil {
		return badRecord(e.Key, err)
	}
	return nil
}

// errNewer is about what a newer dispatcher wrote.
var errNewer = errors.New("start the newer dispatcher that wrote it")

func badRecord(key string, err error) error {
	if errors.Is(err, errNewer) {
		return fmt.Errorf("the record %q cannot be used: %w", key, err)
	}
	return fmt.Errorf("the record %q cannot be used: %w; restore the data folder from a backup", key, err)
}
