package faas

import (
	"strings"
	"testing"
)

// Variables count as if the process had started with them, or are refused.
func TestCheckEnvironment(t *testing.T) {
	for _, c := range []struct{ lang, env, secrets, refused string }{
		{"python", "TZ=Asia/Tokyo,LANG=de_DE.UTF-8,LC_ALL=C.UTF-8,SSL_CERT_FILE=/a,MALLOC_ARENA_MAX=2,HTTP_PROXY=http://a,HOME=/a,TMPDIR=/tmp,NO_COLOR=1", "", ""},
		{"python", "NODE_DEBUG=http,UV_USE_IO_URING=1", "NODE_ICU_DATA", ""}, // are nothing to Python
		{"python", "OPENSSL_CONF=/a", "", "OPENSSL_CONF"},
		{"python", "GLIBC_TUNABLES=a", "", "GLIBC_TUNABLES"},
		{"python", "A=1", "GLIBC_TUNABLES", "GLIBC_TUNABLES"},
		{"node", "TZ=Asia/Tokyo,NODE_EXTRA_CA_CERTS=/a,UV_THREADPOOL_SIZE=8,NODE_PATH=/a,SSL_CERT_FILE=/a,NODE_TLS_REJECT_UNAUTHORIZED=0,NODE_NO_WARNINGS=1,NODE_ENV=production", "MALLOC", ""},
		{"node", "LANG=C.UTF-8,LC_ALL=en_US.UTF-8,LC_MESSAGES=POSIX,LC_TIME=de_DE", "", ""},
		{"node", "LANG=de_DE.UTF-8", "", "LANG"},
		{"node", "LC_ALL=en_GB", "", "LC_ALL"},
		{"node", "LC_MESSAGES=", "", "LC_MESSAGES"},
		{"node", "", "LANG", "LANG"}, // whatever its value will be
		{"node", "NODE_DEBUG=http", "", "NODE_DEBUG"},
		{"node", "", "NODE_DEBUG", "NODE_DEBUG"},
		{"node", "NODE_PENDING_DEPRECATION=1", "", "NODE_PENDING_DEPRECATION"},
		{"node", "MALLOC_ARENA_MAX=2", "", "MALLOC_ARENA_MAX"},
		{"node", "OPENSSL_CONF=/a", "", "OPENSSL_CONF"},
	} {
		s, err := texts{"env": c.env, "secrets": c.secrets}.Apply(DefaultSettings())
		if err != nil {
			t.Fatal(err)
		}
		err = CheckEnvironment(c.lang, s)
		if (err != nil) != (c.refused != "") || err != nil && (CodeOf(err) != CodeBadRequest || !strings.HasPrefix(err.Error(), c.refused+" ")) {
			t.Errorf("%s with %s, and %s: %v", c.lang, c.env, c.secrets, err)
		}
	}
}
