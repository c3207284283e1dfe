package telemetry

import "github.com/prometheus/client_golang/prometheus"

// Snapshot holds what is counted anew at each scrape.
type Snapshot struct {
	Sandboxes map[string]int // by state
	Memory    int64          // bytes that all sandboxes together may use
	Functions []Function     // all
	Flocks    []Flock        // of functions that have a sandbox or a call
	Pools     map[string]Pool
}

// Function is what a function is called.
type Function struct {
	ID, Name, Lang string
	Version        int // the live one's number
}

// Flock is what the sandboxes of one function do.
type Flock struct {
	Function  string // its ID
	Running   int    // calls
	Waiting   int    // calls
	Sandboxes int    // that take calls, or are paused
	Wanted    int    // sandboxes that the scaler wants
	Reason    string // why it wants that many, or why there are fewer
}

// Pool is how many blank sandboxes a language has, and how many it should have.
type Pool struct{ Size, Target int }

// Watch sets the function that returns a snapshot for each scrape, and the caps on
// sandboxes and on their memory in bytes.
func (m *Metrics) Watch(maxSandboxes int, maxMemory int64, stats func() Snapshot) {
	m.registry.MustRegister(&collector{stats, maxSandboxes, maxMemory})
}

// collector turns a snapshot into metrics.
type collector struct {
	stats        func() Snapshot
	maxSandboxes int
	maxMemory    int64
}

var (
	sandboxesDesc    = prometheus.NewDesc("fob_sandboxes", "Sandboxes by state.", []string{"state"}, nil)
	maxSandboxesDesc = prometheus.NewDesc("fob_sandboxes_limit", "Sandboxes that there may be (FOB_MAX_SANDBOXES).", nil, nil)
	memoryDesc       = prometheus.NewDesc("fob_sandbox_memory_bytes", "Memory that the sandboxes may use together.", nil, nil)
	maxMemoryDesc    = prometheus.NewDesc("fob_sandbox_memory_limit_bytes", "Memory that the sandboxes may be given together (FOB_MAX_MEMORY).", nil, nil)
	infoDesc         = prometheus.NewDesc("fob_function_info", "Always 1. The labels say what a function is called, and its language.", []string{"function", "name", "lang"}, nil)
	versionDesc      = prometheus.NewDesc("fob_function_version", "The number of the version that is live.", []string{"function"}, nil)
	runningDesc      = prometheus.NewDesc("fob_calls_running", "Calls that have a slot.", []string{"function"}, nil)
	queueDesc        = prometheus.NewDesc("fob_queue_depth", "Calls that wait for a slot.", []string{"function"}, nil)
	haveDesc         = prometheus.NewDesc("fob_scaler_sandboxes", "Sandboxes that take calls of a function, or are paused.", []string{"function"}, nil)
	wantedDesc       = prometheus.NewDesc("fob_scaler_wanted_sandboxes", "Sandboxes that the scaler wants for a function.", []string{"function"}, nil)
	reasonDesc       = prometheus.NewDesc("fob_scaler_reason", "Always 1. The label reason says why the scaler wants so many, or why there are fewer.", []string{"function", "reason"}, nil)
	poolDesc         = prometheus.NewDesc("fob_pool_size", "Blank sandboxes that are ready.", []string{"lang"}, nil)
	poolTargetDesc   = prometheus.NewDesc("fob_pool_target", "Blank sandboxes that the pool keeps.", []string{"lang"}, nil)

	brokenDesc = prometheus.NewDesc("fob_storage_failed", "1 if the database has failed, so that nothing can be changed, else 0.", nil, nil)
	freeDesc   = prometheus.NewDesc("fob_data_free_bytes", "Space that is free on the file system that has FOB_DATA.", nil, nil)
	sizeDesc   = prometheus.NewDesc("fob_data_size_bytes", "Size of the file system that has FOB_DATA.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{sandboxesDesc, maxSandboxesDesc, memoryDesc, maxMemoryDesc, infoDesc, versionDesc, runningDesc, queueDesc,
		haveDesc, wantedDesc, reasonDesc, poolDesc, poolTargetDesc} {
		out <- desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	now, gauge := c.stats(), gaugesTo(out)
	for state, n := range now.Sandboxes {
		gauge(sandboxesDesc, float64(n), state)
	}
	gauge(maxSandboxesDesc, float64(c.maxSandboxes))
	gauge(memoryDesc, float64(now.Memory))
	gauge(maxMemoryDesc, float64(c.maxMemory))
	for _, f := range now.Functions {
		gauge(infoDesc, 1, f.ID, f.Name, f.Lang)
		gauge(versionDesc, float64(f.Version), f.ID)
	}
	for _, f := range now.Flocks {
		gauge(runningDesc, float64(f.Running), f.Function)
		gauge(queueDesc, float64(f.Waiting), f.Function)
		gauge(haveDesc, float64(f.Sandboxes), f.Function)
		gauge(wantedDesc, float64(f.Wanted), f.Function)
		gauge(reasonDesc, 1, f.Function, f.Reason)
	}
	for lang, pool := range now.Pools {
		gauge(poolDesc, float64(pool.Size), lang)
		gauge(poolTargetDesc, float64(pool.Target), lang)
	}
}

// gaugesTo returns a function that sends one gauge.
func gaugesTo(out chan<- prometheus.Metric) func(desc *prometheus.Desc, value float64, labels ...string) {
	return func(desc *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
}

// storage turns the state of the data folder into metrics.
type storage struct {
	broken func() bool
	space  func() (free, size uint64)
}

// Describe implements prometheus.Collector.
func (*storage) Describe(out chan<- *prometheus.Desc) {
	out <- brokenDesc
	out <- freeDesc
	out <- sizeDesc
}

// Collect implements prometheus.Collector.
func (s *storage) Collect(out chan<- prometheus.Metric) {
	gauge, broken := gaugesTo(out), 0.0
	if s.broken() {
		broken = 1
	}
	free, size := s.space()
	gauge(brokenDesc, broken)
	gauge(freeDesc, float64(free))
	gauge(sizeDesc, float64(size))
}
