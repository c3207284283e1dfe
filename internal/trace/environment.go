package trace

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"strconv"
	"strings"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"
)

// environment is what the OTEL_ variables say that the SDK does not read by itself.
type environment struct {
	sampler      sdk.Sampler
	queue, batch int // how many spans may wait, and how many are sent at once
}

// readEnvironment reads the variables. It returns nil if no traces are wanted. It checks
// what the SDK would complain of on standard error, or fall over. No error has a value
// that may be secret.
func readEnvironment() (*environment, error) {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") {
		return nil, nil
	}
	switch exporter := os.Getenv("OTEL_TRACES_EXPORTER"); exporter {
	case "none":
		return nil, nil
	case "otlp":
	case "":
		if os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "" {
			return nil, nil
		}
	default:
		return nil, fmt.Errorf("OTEL_TRACES_EXPORTER=%s: there are otlp and none", exporter)
	}
	if protocol := otlp("PROTOCOL"); protocol != "" && protocol != "http/protobuf" && protocol != "http/json" {
		return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL=%s: there are http/protobuf and http/json; collectors listen for them at port 4318", protocol)
	}
	if endpoint := otlp("ENDPOINT"); endpoint != "" {
		if u, err := url.Parse(endpoint); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_ENDPOINT is not a URL like http://127.0.0.1:4318")
		}
	}
	if err := checkHeaders(otlp("HEADERS")); err != nil {
		return nil, err
	}
	env := &environment{}
	var err error
	if env.sampler, err = readSampler(os.Getenv("OTEL_TRACES_SAMPLER"), os.Getenv("OTEL_TRACES_SAMPLER_ARG")); err != nil {
		return nil, err
	}
	for _, n := range []struct {
		name                  string
		to                    *int
		fallback, least, most int
	}{
		{"OTEL_BSP_MAX_QUEUE_SIZE", &env.queue, sdk.DefaultMaxQueueSize, maxPhases, 1 << 20},
		{"OTEL_BSP_MAX_EXPORT_BATCH_SIZE", &env.batch, sdk.DefaultMaxExportBatchSize, 1, 1 << 20},
		{"OTEL_BSP_SCHEDULE_DELAY", new(int), sdk.DefaultScheduleDelay, 1, 1 << 30},
		{"OTEL_BSP_EXPORT_TIMEOUT", new(int), sdk.DefaultExportTimeout, 1, 1 << 30},
		{"OTEL_EXPORTER_OTLP_TIMEOUT", new(int), 10_000, 1, 1 << 30},
		{"OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", new(int), 10_000, 1, 1 << 30},
	} {
		*n.to = n.fallback
		if text := os.Getenv(n.name); text != "" {
			if *n.to, err = strconv.Atoi(text); err != nil || *n.to < n.least || *n.to > n.most {
				return nil, fmt.Errorf("%s=%s is not a number from %d to %d", n.name, text, n.least, n.most)
			}
		}
	}
	env.batch = min(env.batch, env.queue)
	return env, nil
}

// otlp returns a variable of the exporter's: the one for traces, or the general one.
func otlp(name string) string {
	return cmp.Or(os.Getenv("OTEL_EXPORTER_OTLP_TRACES_"+name), os.Getenv("OTEL_EXPORTER_OTLP_"+name))
}

// checkHeaders checks a list of headers, such as api-key=a%20b,x=y.
func checkHeaders(list string) error {
	if list == "" {
		return nil
	}
	for i, header := range strings.Split(list, ",") {
		name, value, found := strings.Cut(header, "=")
		_, err := url.PathUnescape(value)
		if name = strings.TrimSpace(name); !found || err != nil || name == "" || strings.ContainsAny(name, " \t:\r\n\x00") {
			return fmt.Errorf("OTEL_EXPORTER_OTLP_HEADERS: header %d of the list is not NAME=VALUE, with a value in which %%20 stands for a blank, and %%25 for %%", i+1)
		}
	}
	return nil
}

// readSampler returns the sampler that the variables name.
func readSampler(name, arg string) (sdk.Sampler, error) {
	ratio := 1.0
	if strings.HasSuffix(name, "traceidratio") && arg != "" {
		var err error
		if ratio, err = strconv.ParseFloat(arg, 64); err != nil || !(0 <= ratio && ratio <= 1) {
			return nil, fmt.Errorf("OTEL_TRACES_SAMPLER_ARG=%s is not a number from 0 to 1", arg)
		}
	}
	switch name {
	case "", "parentbased_always_on":
		return sdk.ParentBased(sdk.AlwaysSample()), nil
	case "parentbased_always_off":
		return sdk.ParentBased(sdk.NeverSample()), nil
	case "parentbased_traceidratio":
		return sdk.ParentBased(sdk.TraceIDRatioBased(ratio)), nil
	case "always_on":
		return sdk.AlwaysSample(), nil
	case "always_off":
		return sdk.NeverSample(), nil
	case "traceidratio":
		return sdk.TraceIDRatioBased(ratio), nil
	}
	return nil, fmt.Errorf("OTEL_TRACES_SAMPLER=%s: there are always_on, always_off and traceidratio, and each with parentbased_ before it", name)
}

// randomSpan returns an ID that is not zero.
func randomSpan() (id oteltrace.SpanID) {
	binary.BigEndian.PutUint64(id[:], rand.Uint64()|1)
	return id
}
