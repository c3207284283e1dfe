package trace

import (
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/flockofbirds/fob/internal/faas"
)

// Own attributes, for which there are no semantic conventions.
const (
	functionKey = attribute.Key("fob.function")
	aliasKey    = attribute.Key("fob.alias")
	callerKey   = attribute.Key("fob.caller")
)

// nameOf returns the name of a call's span. What strangers make up is no name.
func nameOf(call *faas.CallRecord) string {
	switch {
	case call.Function == "":
		return "unknown function"
	case call.Name == "":
		return call.Function
	}
	return call.Name
}

// attributes returns what the span says of a call, in the names of OpenTelemetry's
// semantic conventions where there are some.
func attributes(call *faas.CallRecord) []attribute.KeyValue {
	all := []attribute.KeyValue{
		semconv.FaaSTriggerHTTP, semconv.FaaSInvocationID(call.ID), semconv.FaaSColdstart(call.Cold),
		method(call.Method), semconv.URLPath(call.Path), semconv.HTTPRoute("/api/call/{ref}"),
		semconv.HTTPRequestBodySize(int(call.BytesIn)), semconv.HTTPResponseBodySize(int(call.BytesOut)), callerKey.String(call.Caller),
	}
	if status := statusOf(call); status != 0 {
		all = append(all, semconv.HTTPResponseStatusCode(status))
	}
	if call.Function != "" {
		all = append(all, semconv.FaaSName(nameOf(call)), semconv.FaaSVersion(strconv.Itoa(call.Version)), functionKey.String(call.Function))
	}
	for key, value := range map[attribute.Key]string{semconv.FaaSInstanceKey: call.Sandbox, aliasKey: call.Alias, semconv.ClientAddressKey: hostOf(call.Address)} {
		if value != "" {
			all = append(all, key.String(value))
		}
	}
	return all
}

var methods = []string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, "QUERY",
}

// method returns the attribute for a method. A caller's own has no name.
func method(name string) attribute.KeyValue {
	if slices.Contains(methods, name) {
		return semconv.HTTPRequestMethodKey.String(name)
	}
	return semconv.HTTPRequestMethodOther
}

// hostOf returns an address without its port.
func hostOf(address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil {
		return host
	}
	return address
}

const (
	wentWell  = "ok"
	cancelled = "cancelled"
)

// statusOf returns the status of the answer: the function's own, or that of the error. It
// is 0 if the caller did not wait for one.
func statusOf(call *faas.CallRecord) int {
	if call.Status != 0 || call.Outcome == wentWell || call.Outcome == cancelled {
		return call.Status
	}
	return faas.Code(call.Outcome).Info().Status
}

// describe sets a span's status, and adds what the function raised. As the conventions
// for servers say, a call that its caller got wrong is no error of the span's.
func describe(span oteltrace.Span, call *faas.CallRecord, ended time.Time) {
	status := statusOf(call)
	if call.Outcome == wentWell {
		if status >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, "")
			span.SetAttributes(semconv.ErrorTypeKey.String(strconv.Itoa(status)))
		}
		return
	}
	span.SetAttributes(semconv.ErrorTypeKey.String(call.Outcome))
	message := ""
	if call.Error != nil {
		message = call.Error.Message
	}
	if call.Outcome != cancelled && (status < http.StatusBadRequest || status >= http.StatusInternalServerError) {
		span.SetStatus(codes.Error, message)
	}
	if e := call.Error; e != nil && e.Type != "" {
		span.AddEvent("exception", oteltrace.WithTimestamp(ended), oteltrace.WithAttributes(
			semconv.ExceptionType(e.Type), semconv.ExceptionMessage(e.Message), semconv.ExceptionStacktrace(e.Traceback),
		))
	}
}
