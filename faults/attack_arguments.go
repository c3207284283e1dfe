package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// arguments calls a function of each language with as many empty objects as a body
// holds. The calls must be refused, and no sandbox may die.
func arguments(s *siege) error {
	codes := map[string]string{"python": "def callme(a): return len(a)", "node": "const callme = (a) => a.length"}
	for lang, code := range codes {
		if err := s.d.Put(lang+"-counts?public=true&max_scale=1&lang="+lang, code); err != nil {
			return err
		}
	}
	before, err := s.coldStarts()
	if err != nil {
		return err
	}
	const objects = 1_900_000
	body := `{"a": [` + strings.Repeat("{},", objects) + "{}]}"
	client := &http.Client{Timeout: time.Minute}
	defer client.CloseIdleConnections()
	answered := 0
	for end := time.Now().Add(s.duration()); time.Now().Before(end) || answered < 2*len(codes); {
		for lang := range codes {
			response, err := client.Post(s.d.URL+"/api/call/"+lang+"-counts", "application/json", strings.NewReader(body))
			if err != nil {
				return err
			}
			text, err := io.ReadAll(response.Body)
			response.Body.Close()
			if err != nil {
				return err
			}
			answered++
			if response.StatusCode != http.StatusBadRequest || !strings.Contains(string(text), "objects, arrays and members") {
				s.violate("arguments: %d objects to %s are answered %s %.300s", objects, lang, response.Status, text)
			}
		}
	}
	after, err := s.coldStarts()
	if err != nil {
		return err
	}
	s.history.note("arguments", "answered", answered, "sandboxes started", after-before)
	if after > before {
		return fmt.Errorf("%v sandboxes were started meanwhile", after-before)
	}
	for lang := range codes {
		if err := s.d.Delete(lang + "-counts"); err != nil {
			return err
		}
	}
	return nil
}
