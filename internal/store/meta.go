package store

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
)

// schema is the version of the layout of records. It is in every record and under
// keySchema. A dispatcher migrates older schemas and refuses newer ones.
const schema = 4

// Keys that have one record each, which is about the whole database.
const (
	keySchema = "meta/schema" // "4"
	keyAviary = "meta/aviary" // 8 hexadecimal digits
)

// schemaKind is the kind of the record that says the schema of all the others.
var schemaKind = kind[plain]{
	description: description{name: "schema", prefix: keySchema, single: true},
	check: func(r *plain) error {
		number, err := strconv.Atoi(string(*r))
		if err != nil {
			return err
		}
		return checkSchema(number)
	},
}

// aviaryKind is the kind of the record that has the aviary's name.
var aviaryKind = kind[plain]{
	description: description{name: "aviary", prefix: keyAviary, single: true},
	check: func(r *plain) error {
		if !aviaryPattern.MatchString(string(*r)) {
			return fmt.Errorf("%.80q is not 8 hexadecimal digits", string(*r))
		}
		return nil
	},
}

var aviaryPattern = regexp.MustCompile(`^[0-9a-f]{8}$`)

func checkSchema(found int) error {
	if found > schema {
		return fmt.Errorf("it has schema %d, this dispatcher knows up to %d: %w", found, schema, errNewer)
	}
	if found < 1 {
		return errors.New("it says no schema")
	}
	return nil
}

// errNewer is the advice about data that a newer dispatcher wrote.
var errNewer = errors.New("start the newer dispatcher that wrote it")

func badRecord(key string, err error) error {
	if errors.Is(err, errNewer) {
		return fmt.Errorf("the record %q cannot be used: %w", key, err)
	}
	return fmt.Errorf("the record %q cannot be used: %w; restore the data folder from a backup", key, err)
}
