package sandbox

import (
	"bytes"
	"strconv"
	"time"
)

// Usage is what a call cost, as the driver says. The zero Usage says nothing.
type Usage struct {
	CPU    time.Duration // of the driver's process
	Memory int64         // bytes of memory that it had resident at most; 0 if unknown
	Shared bool          // other calls ran at the same time, so the figures are of all
}

// parseUsage reads the value of a field Fob-Usage. A stranger's code may have influenced
// it, so what is malformed says nothing.
func parseUsage(value []byte) (u Usage) {
	for i := 0; len(value) > 0; i++ {
		var part []byte
		part, value, _ = bytes.Cut(value, []byte(";"))
		name, number, _ := bytes.Cut(bytes.TrimSpace(part), []byte("="))
		n, err := strconv.ParseInt(string(number), 10, 64)
		switch {
		case i == 0 && string(name) == "cpu" && err == nil && n >= 0 && n <= maxCPU:
			u.CPU = time.Duration(n) * time.Microsecond
		case i == 1 && string(name) == "peak" && err == nil && n >= 0:
			u.Memory = n
		case i > 0 && string(name) == "shared" && len(number) == 0 && len(value) == 0:
			u.Shared = true
		default:
			return Usage{}
		}
	}
	return u
}

// maxCPU is the most that a call is believed to have cost, in microseconds: a year.
const maxCPU = 365 * 24 * 3600 * 1e6
