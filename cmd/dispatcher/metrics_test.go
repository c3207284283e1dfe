package main

import (
	"maps"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/flockofbirds/fob/internal/pages"
	"github.com/flockofbirds/fob/internal/telemetry"
)

// TestDocsMetrics checks the table of metrics, and the names that documents
// mention elsewhere, against the registry.
func TestDocsMetrics(t *testing.T) {
	metrics := telemetry.NewMetrics()
	metrics.Watch(1, 1, func() telemetry.Snapshot { return telemetry.Snapshot{} })
	metrics.Stores(func() bool { return false }, func() (free, size uint64) { return 1, 1 })
	metrics.WatchLog(&telemetry.Output{})
	metrics.Holds(1, func() int64 { return 0 })
	registry, ok := metrics.Gatherer().(*prometheus.Registry)
	if !ok {
		t.Fatal("the metrics are in no registry")
	}
	there := map[string]string{} // labels by name
	described := regexp.MustCompile(`^Desc\{fqName: "(\w+)", .*variableLabels: \{(.*)\}\}$`)
	descriptions := make(chan *prometheus.Desc)
	go func() {
		registry.Describe(descriptions)
		close(descriptions)
	}()
	for d := range descriptions {
		m := described.FindStringSubmatch(d.String())
		if m == nil {
			t.Errorf("what is %s?", d)
		} else if strings.HasPrefix(m[1], "fob_") {
			there[m[1]] = strings.ReplaceAll(m[2], ",", ", ")
		}
	}
	listed := map[string]string{}
	for _, of := range []string{"calls", "functions", "the machine"} {
		for _, row := range pages.Table(t, "docs/reference/metrics.md", "metric of "+of, "labels", "what it is") {
			listed[pages.Code(row[0])] = row[1]
			if row[2] == "" {
				t.Errorf("the table does not say what %s is", row[0])
			}
		}
	}
	if !maps.Equal(listed, there) {
		t.Errorf("the tables list\n%v\nand there are\n%v", listed, there)
	}
	for _, row := range pages.Table(t, "docs/reference/metrics.md", "reserved", "what it will be") {
		if _, exists := there[pages.Code(row[0])]; exists {
			t.Errorf("%s is said to be reserved, and is there", row[0])
		}
		listed[pages.Code(row[0])] = row[1]
	}
	series := regexp.MustCompile(`_(bucket|count|sum)$`) // of a histogram
	for _, document := range pages.Documents(t) {
		for _, metric := range regexp.MustCompile(`\bfob_[a-z_]+`).FindAllString(pages.Read(t, document), -1) {
			metric = series.ReplaceAllString(metric, "")
			if _, known := listed[metric]; !known {
				t.Errorf("%s names the metric %s, which does not exist", document, metric)
			}
		}
	}
}
