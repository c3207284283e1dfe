package cli

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
)

// Open is the command that opens the dispatcher's page in a browser.
type Open struct{ Remote }

// Run implements the command. It prints the address, too, because there may be no
// browser here.
func (c *Open) Run() error {
	if c.URL == "" {
		return errors.New("a data folder does not say at which address its dispatcher has its page: give FOB_URL, such as http://127.0.0.1:9999, or a context")
	}
	base, err := baseURL(c.URL)
	if err != nil {
		return err
	}
	fmt.Println(base + "/")
	browser := os.Getenv("BROWSER")
	switch {
	case browser != "":
	case runtime.GOOS == "darwin":
		browser = "open"
	case os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "":
		return nil
	default:
		browser = "xdg-open"
	}
	// The page asks for the token itself: in an address it would get into histories.
	if err := exec.Command(browser, base+"/").Run(); err != nil {
		return fmt.Errorf("%s: %w; open the address above yourself", browser, err)
	}
	return nil
}
