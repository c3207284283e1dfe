package main

import (
	"fmt"
	"io"
	"time"
)

// registration is how long POST /api/gen took.
type registration struct {
	Lang, From string
	spread
}

// registrations is the result of register.
type registrations []registration

// register registers functions one after the other, with a pool and without one.
func register(b *bench) (report, error) {
	var all registrations
	count := pick(b, 20, 6)
	for _, from := range []string{fromPool, fromEngine} {
		blank := 0
		if from == fromPool {
			blank = 1
		}
		d, err := b.start(fmt.Sprintf("FOB_POOL=python=%d,node=%d", blank, blank))
		if err != nil {
			return nil, err
		}
		defer d.remove()
		for _, lang := range b.langs {
			progress("registering %d %s functions, each from a %s", count, lang, from)
			var took []time.Duration
			for n := range count {
				if err := d.settle(2 * blank); err != nil {
					return nil, err
				}
				name := fmt.Sprintf("gen-%s-%d", lang, n)
				begun := time.Now()
				if _, err := d.Ask("POST", "/api/gen?lang="+lang+"&name="+name, noop[lang]); err != nil {
					return nil, err
				}
				took = append(took, time.Since(begun))
				if err := d.Delete(name); err != nil {
					return nil, err
				}
			}
			all = append(all, registration{lang, from, spreadOf(took)})
		}
		if err := d.Terminate(); err != nil {
			return nil, err
		}
		count = (count + 1) / 2 // each takes longer
	}
	return all, nil
}

func (r registrations) print(out io.Writer) {
	w := newTable(out)
	fmt.Fprintln(w, "POST /api/gen\tfrom\tp50\tmax\tn\t")
	for _, g := range r {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t\n", g.Lang, g.From, ms(g.P50), ms(g.Max), g.Count)
	}
	w.Flush()
}

func (registrations) targets() []target { return nil }
