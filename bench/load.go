package main

import (
	"io"
	"math"
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

// load is what a number of clients achieved in one round.
type load struct {
	CallsPerSecond float64 // answered 200
	P50, P99       time.Duration
	Failed         map[int]int64 // answers other than 200 by status; -1 for no answer
}

// attack has clients call as fast as they get answers, each on one connection.
func attack(options fhttp.HTTPOptions, clients int, duration time.Duration) (load, error) {
	log.SetLogLevelQuiet(log.Error) // fortio logs each run
	result, err := fhttp.RunHTTPTest(&fhttp.HTTPRunnerOptions{
		RunnerOptions: periodic.RunnerOptions{
			QPS:         -1,
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
	l := load{
		CallsPerSecond: float64(result.RetCodes[200]) / result.ActualDuration.Seconds(),
		P50:            seconds(result.DurationHistogram.Percentiles[0].Value),
		P99:            seconds(result.DurationHistogram.Percentiles[1].Value),
		Failed:         map[int]int64{},
	}
	for status, n := range result.RetCodes {
		if status != 200 {
			l.Failed[status] += n
		}
	}
	return l, nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// medianOf returns the median of a value of the items.
func medianOf[T any](items []T, value func(T) float64) float64 {
	values := make([]float64, len(items))
	for i, item := range items {
		values[i] = value(item)
	}
	slices.Sort(values)
	return (values[(len(values)-1)/2] + values[len(values)/2]) / 2
}

// median returns the median of each figure by itself. Failures are added up.
func median(rounds []load) load {
	m := load{
		CallsPerSecond: medianOf(rounds, func(l load) float64 { return l.CallsPerSecond }),
		P50:            time.Duration(medianOf(rounds, func(l load) float64 { return float64(l.P50) })),
		P99:            time.Duration(medianOf(rounds, func(l load) float64 { return float64(l.P99) })),
		Failed:         map[int]int64{},
	}
	for _, l := range rounds {
		for status, n := range l.Failed {
			m.Failed[status] += n
		}
	}
	return m
}

// ratio compares two ways. It is the median of the ratios within each round, because
// whatever slows the machine in a round slows both ways.
type ratio struct{ CallsPerSecond, P50, P99 float64 }

func compare(ours, theirs []load) ratio {
	type pair struct{ a, b load }
	var pairs []pair
	for i := range ours {
		pairs = append(pairs, pair{ours[i], theirs[i]})
	}
	return ratio{
		CallsPerSecond: medianOf(pairs, func(p pair) float64 { return p.a.CallsPerSecond / p.b.CallsPerSecond }),
		P50:            medianOf(pairs, func(p pair) float64 { return float64(p.a.P50) / float64(p.b.P50) }),
		P99:            medianOf(pairs, func(p pair) float64 { return float64(p.a.P99) / float64(p.b.P99) }),
	}
}

// spread summarises how long something took that was done again and again.
type spread struct {
	Count         int
	P50, P99, Max time.Duration
}

func spreadOf(took []time.Duration) spread {
	slices.Sort(took)
	rank := func(share float64) time.Duration { return took[max(0, int(math.Ceil(share*float64(len(took))))-1)] }
	return spread{Count: len(took), P50: rank(.5), P99: rank(.99), Max: took[len(took)-1]}
}
