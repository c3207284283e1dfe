package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// reconcilePatience is how long it may take until the containers are exactly those that
// the dispatcher knows.
const reconcilePatience = 30 * time.Second

// stray compares the aviary's containers and folders with what the dispatcher knows
// about these versions, which must be all versions. It returns what is wrong.
func (d *dispatcher) stray(e *engine, refs []string) string {
	metrics, err := d.Metrics()
	if err != nil {
		return err.Error()
	}
	var known []string
	for _, ref := range refs {
		ids, err := d.Running(ref)
		if err != nil {
			return err.Error()
		}
		known = append(known, ids...)
	}
	there, err := e.sandboxes(d.aviary)
	if err != nil {
		return err.Error()
	}
	for _, id := range known {
		if !slices.Contains(there, id) {
			return fmt.Sprintf("the dispatcher knows sandbox %s, which there is not", id)
		}
	}
	blank := int(metrics[`fob_sandboxes{state="blank"}`])
	switch folders := d.sockets(); {
	case blank != int(metrics.Sum("fob_pool_target{")):
		return fmt.Sprintf("the pools have %d sandboxes", blank)
	case len(there)-len(known) != blank:
		return fmt.Sprintf("of the containers %v the dispatcher knows %v, and %d blank ones", there, known, blank)
	case !slices.Equal(folders, there):
		return fmt.Sprintf("the socket folders are %v, and the containers %v", folders, there)
	}
	return ""
}

// reconciled waits until nothing is stray, and returns how long that took.
func (d *dispatcher) reconciled(e *engine, refs ...string) (took time.Duration, err error) {
	begun := time.Now()
	for wrong := ""; ; time.Sleep(20 * time.Millisecond) {
		if wrong = d.stray(e, refs); wrong == "" {
			return time.Since(begun), nil
		}
		if time.Since(begun) > reconcilePatience {
			return 0, fmt.Errorf("not reconciled after %v: %s; the end of the dispatcher's log: %s", reconcilePatience, wrong, d.Log.Tail())
		}
	}
}

// sockets returns the IDs of the sandboxes that have a folder, sorted.
func (d *dispatcher) sockets() []string {
	entries, _ := os.ReadDir(filepath.Join(d.data, "s")) // before the first start there is no folder
	var ids []string
	for _, entry := range entries {
		if id, is := strings.CutPrefix(entry.Name(), d.aviary+"-"); is {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}
