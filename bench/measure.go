package main

import (
	"fmt"
	"io"
	"slices"
	"time"

	"fortio.org/fortio/fhttp"
	"fortio.org/fortio/periodic"
	"fortio.org/log"
)

// noop is a function that does nothing, in each language.
var noop = map[string]string{
	"python": "def callme(): return 1",
	"node":   "function callme() { return 1 }",
}

// registration is how long POST /api/gen took.
type registration struct {
	Lang   string
	Pooled bool // a blank sandbox was waiting
	Count  int
	Median time.Duration
	Max    time.Duration
}

// register registers functions one after the other.
func register(d *dispatcher, lang string, count int, pooled bool) (registration, error) {
	var took []time.Duration
	for n := range count {
		if pooled {
			if err := d.blank(); err != nil {
				return registration{}, err
			}
		}
		name := fmt.Sprintf("gen-%s-%d", lang, n)
		begun := time.Now()
		if _, err := d.ask("POST", "/api/gen?lang="+lang+"&name="+name, noop[lang]); err != nil {
			return registration{}, err
		}
		took = append(took, time.Since(begun))
		if _, err := d.ask("DELETE", "/api/functions/"+name, ""); err != nil {
			return registration{}, err
		}
	}
	slices.Sort(took)
	return registration{Lang: lang, Pooled: pooled, Count: count, Median: took[len(took)/2], Max: took[len(took)-1]}, nil
}

// load is what a number of clients achieved: the median of the rounds.
type load struct {
	CallsPerSecond float64
	P50, P99       time.Duration
}

// comparison is the same call of one function in one sandbox, made straight to
// the driver, through the reverse proxy, and through the dispatcher.
type comparison struct {
	Lang       string
	Clients    int
	Driver     load
	Proxy      load
	Dispatcher load
}

// compare lets clients call a no-op function as fast as they get answers, the
// three ways in turns.
func compare(d *dispatcher, lang string, clients int, duration time.Duration, rounds int) (comparison, error) {
	c := comparison{Lang: lang, Clients: clients}
	name := fmt.Sprintf("noop-%s-%d", lang, clients)
	// Each of the three keeps its connections open meanwhile, and a driver may
	// have a thread for each.
	if _, err := d.ask("PUT", fmt.Sprintf("/api/functions/%s?lang=%s&concurrency=%d&max_scale=1", name, lang, 4*clients), noop[lang]); err != nil {
		return c, err
	}
	socket, err := d.socket(name)
	if err != nil {
		return c, err
	}
	p, err := startProxy(socket)
	if err != nil {
		return c, err
	}
	defer p.stop()
	driver := fhttp.HTTPOptions{URL: "http://driver/", MethodOverride: "POST"}
	driver.UnixDomainSocket = socket
	ways := []struct {
		options fhttp.HTTPOptions
		into    *load
		rounds  []load
	}{
		{options: driver, into: &c.Driver},
		{options: fhttp.HTTPOptions{URL: p.url + "/"}, into: &c.Proxy},
		{options: fhttp.HTTPOptions{URL: d.url + "/api/call/" + name}, into: &c.Dispatcher},
	}
	for _, way := range ways { // warm up
		if _, err := attack(way.options, clients, duration/4); err != nil {
			return c, err
		}
	}
	for range rounds {
		for i := range ways {
			measured, err := attack(ways[i].options, clients, duration)
			if err != nil {
				return c, err
			}
			ways[i].rounds = append(ways[i].rounds, measured)
		}
	}
	for _, way := range ways {
		*way.into = median(way.rounds)
	}
	_, err = d.ask("DELETE", "/api/functions/"+name, "")
	return c, err
}

func attack(options fhttp.HTTPOptions, clients int, duration time.Duration) (load, error) {
	log.SetLogLevelQuiet(log.Error) // fortio logs each run
	result, err := fhttp.RunHTTPTest(&fhttp.HTTPRunnerOptions{
		RunnerOptions: periodic.RunnerOptions{
			QPS:         -1, // as fast as answers come
			Duration:    duration,
			NumThreads:  clients,
			Percentiles: []float64{50, 99},
			Resolution:  0.000001,
			Out:         io.Discard,
		},
		HTTPOptions: options,
	})
	if err != nil {
		return load{}, err
	}
	if n := result.RetCodes[200]; n != result.DurationHistogram.Count {
		return load{}, fmt.Errorf("%s: %d of %d calls were not answered 200: %v", options.URL, result.DurationHistogram.Count-n, result.DurationHistogram.Count, result.RetCodes)
	}
	seconds := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	percentiles := result.DurationHistogram.Percentiles
	return load{result.ActualQPS, seconds(percentiles[0].Value), seconds(percentiles[1].Value)}, nil
}

func median(loads []load) load {
	pick := func(value func(load) float64) float64 {
		values := make([]float64, len(loads))
		for i, l := range loads {
			values[i] = value(l)
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	return load{
		CallsPerSecond: pick(func(l load) float64 { return l.CallsPerSecond }),
		P50:            time.Duration(pick(func(l load) float64 { return float64(l.P50) })),
		P99:            time.Duration(pick(func(l load) float64 { return float64(l.P99) })),
	}
}
