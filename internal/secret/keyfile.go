package secret

import (
	"bufio"
	"bytes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/flockofbirds/fob/internal/durable"
	"github.com/flockofbirds/fob/internal/faas"
)

// key is one key of the file.
type key struct {
	id     string // 8 hexadecimal digits
	secret [chacha20poly1305.KeySize]byte
}

func newKey() *key {
	var id [4]byte
	rand.Read(id[:]) // never fails
	k := &key{id: hex.EncodeToString(id[:])}
	rand.Read(k.secret[:])
	return k
}

func (k *key) aead() cipher.AEAD {
	aead, err := chacha20poly1305.NewX(k.secret[:])
	if err != nil {
		panic(err) // only a key of another size fails
	}
	return aead
}

// keys are the keys of a file. The first one seals.
type keys []*key

func (all keys) find(id string) *key {
	for _, k := range all {
		if k.id == id {
			return k
		}
	}
	return nil
}

// wipe overwrites the keys after use.
func (all keys) wipe() {
	for _, k := range all {
		clear(k.secret[:])
	}
}

// keyFile is the path of a key file. It has a line for each key: its ID, a blank, and
// its 32 bytes in hexadecimal.
type keyFile string

var linePattern = regexp.MustCompile(`^([0-9a-f]{8}) ([0-9a-f]{64})$`)

// maxKeyFile is larger than any key file: two keys, or a few more after crashes.
const maxKeyFile = 64 << 10

// read returns the keys. If there is no file, there are none.
func (f keyFile) read() (keys, error) {
	file, err := os.Open(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, f.bad(err, "make it readable for the user that the dispatcher runs as")
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, f.bad(err, "restore it from a backup")
	}
	if info.Mode().Perm()&^0o600 != 0 {
		return nil, f.bad(fmt.Errorf("others may read or change it: its mode is %#o", info.Mode().Perm()), "chmod 600 "+string(f))
	}
	text, err := io.ReadAll(io.LimitReader(file, maxKeyFile))
	defer clear(text)
	if err != nil {
		return nil, f.bad(err, "restore it from a backup")
	}
	var all keys
	lines := bufio.NewScanner(bytes.NewReader(text))
	for number := 1; lines.Scan(); number++ {
		m := linePattern.FindSubmatch(lines.Bytes())
		if m == nil {
			return nil, f.bad(fmt.Errorf("line %d is not an ID and a key", number), "restore it from a backup")
		}
		k := &key{id: string(m[1])}
		if _, err := hex.Decode(k.secret[:], m[2]); err != nil {
			return nil, f.bad(err, "restore it from a backup")
		}
		all = append(all, k)
	}
	if len(all) == 0 {
		return nil, f.bad(errors.New("there is no key in it"), "restore it from a backup, or remove it if no secret was ever set")
	}
	return all, nil
}

// create makes the file with a new key, and returns when it is synced. If somebody else
// has made the file first, it returns that one's keys.
func (f keyFile) create() (keys, error) {
	fresh := keys{newKey()}
	temporary, err := f.write(fresh)
	if err != nil {
		return nil, err
	}
	defer os.Remove(temporary)
	err = os.Link(temporary, string(f))
	if errors.Is(err, fs.ErrExist) {
		return f.read()
	}
	if err == nil {
		err = durable.SyncFolder(filepath.Dir(string(f)))
	}
	if err != nil {
		return nil, f.bad(err, "make its folder one that the dispatcher can write to, or choose another file with FOB_KEY_FILE")
	}
	return fresh, nil
}

// replace replaces the file's keys, all at once, and returns when that is synced.
func (f keyFile) replace(all keys) error {
	temporary, err := f.write(all)
	if err != nil {
		return err
	}
	defer os.Remove(temporary)
	err = os.Rename(temporary, string(f))
	if err == nil {
		err = durable.SyncFolder(filepath.Dir(string(f)))
	}
	if err != nil {
		return f.bad(err, "make its folder one that the dispatcher can write to")
	}
	return nil
}

// write writes a file beside the key file, synced, and returns its name.
func (f keyFile) write(all keys) (name string, err error) {
	name = string(f) + ".new"
	var text bytes.Buffer
	defer func() { clear(text.Bytes()) }()
	for _, k := range all {
		fmt.Fprintf(&text, "%s %x\n", k.id, k.secret)
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) { // a crash may have left it
		return "", f.bad(err, "remove "+name)
	}
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		_, err = file.Write(text.Bytes())
		err = errors.Join(err, file.Sync(), file.Close())
		if err != nil {
			os.Remove(name) // it is incomplete; the next write would remove it, too
		}
	}
	if err != nil {
		return "", f.bad(err, "make its folder one that the dispatcher can write to, or choose another file with FOB_KEY_FILE")
	}
	return name, nil
}

// bad returns an error about the file. advice goes to the log, because it names files.
func (f keyFile) bad(err error, advice string) error {
	if faas.DiskFull(err) {
		return faas.NoSpace("write the key file of the secrets", "FOB_KEY_FILE", fmt.Errorf("%s: %w", string(f), err))
	}
	return faas.Errorf(faas.CodeInternal, "the key file of the secrets cannot be used; the dispatcher's log says how to fix that").
		Because(fmt.Errorf("%s: %w; %s", string(f), err, advice))
}
