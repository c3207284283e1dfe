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
const schema = 2

// The keys. A version's code stands apart from its function, so that reading
// all functions at start reads no code.
const (
	keySchema = "meta/schema" // "2"
	keyAviary = "meta/aviary" // 8 hexadecimal digits

	prefixFunction = "function/" // ID → functionRecord
	prefixName     = "name/"     // NAME → ID
	prefixCode     = "code/"     // ID/VERSION → the code as it was registered
	prefixSandbox  = "sandbox/"  // ID → sandboxRecord
	prefixToken    = "token/"    // ID → tokenRecord
)

func functionKey(id string) string { return prefixFunction + id }
func nameKey(name string) string   { return prefixName + name }
func sandboxKey(id string) string  { return prefixSandbox + id }

// codePrefix is that of all of a function's code.
func codePrefix(id string) string { return prefixCode + id + "/" }

func codeKey(id string, version int) string { return fmt.Sprintf("%s%08d", codePrefix(id), version) }

// functionRecord is a function with all its versions. One record for all keeps
// a change of aliases and versions to one comparison.
type functionRecord struct {
	Schema int `json:"schema"`
	*faas.Function
}

type sandboxRecord struct {
	Schema int `json:"schema"`
	faas.VersionKey
}

func encodeFunction(fn *faas.Function) ([]byte, error) {
	if err := checkFunction(fn); err != nil {
		return nil, err
	}
	return json.Marshal(functionRecord{schema, fn})
}

func decodeFunction(e Entry) (*faas.Function, error) {
	record := functionRecord{Function: &faas.Function{}}
	err := json.Unmarshal(e.Value, &record)
	if err == nil {
		err = checkSchema(record.Schema)
	}
	if err == nil {
		err = checkFunction(record.Function)
	}
	if err == nil && functionKey(record.ID) != e.Key {
		err = fmt.Errorf("it is that of function %q", record.ID)
	}
	if err != nil {
		return nil, badRecord(e.Key, err)
	}
	return record.Function, nil
}

// checkFunction makes sure that what others take for granted about a function
// is so: Latest and Live find a version.
func checkFunction(fn *faas.Function) error {
	if fn == nil {
		return errors.New("it holds no function")
	}
	if fn.ID == "" || strings.Contains(fn.ID, "/") {
		return fmt.Errorf("%q is no function ID", fn.ID)
	}
	if len(fn.Versions) == 0 {
		return errors.New("the function has no version")
	}
	last := 0
	for _, v := range fn.Versions {
		if v == nil || v.FunctionID != fn.ID || v.Number <= last {
			return errors.New("its versions are not those of one function in ascending order")
		}
		last = v.Number
	}
	if fn.Live() == nil {
		return errors.New("the alias live points to no version")
	}
	for alias, number := range fn.Aliases {
		if fn.Version(number) == nil {
			return fmt.Errorf("the alias %q points to version %d, which is not there", alias, number)
		}
	}
	return nil
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
