package faas

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"testing"
)

// TestCodeTable: every code has one row, with all there is to say of it.
func TestCodeTable(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "code.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	declared := map[Code]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); ok && kind.Name == "Code" {
			text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			declared[Code(text)] = true
		}
		return true
	})
	if len(declared) < 30 {
		t.Fatalf("found only the codes %v", declared)
	}
	status := 0
	for _, c := range CodeTable {
		if !declared[c.Code] {
			t.Errorf("%s has two rows, or no constant", c.Code)
		}
		delete(declared, c.Code)
		if c.Status < status || c.Status < 400 || c.Fault != FaultFunction && c.Fault != FaultPlatform || c.Title == "" || c.When == "" || c.Remedy == "" {
			t.Errorf("the row of %s lacks something, or is out of order: %+v", c.Code, c)
		}
		status = c.Status
		if got := c.Code.Info(); got != c {
			t.Errorf("%s is said to be %+v", c.Code, got)
		}
	}
	if len(declared) > 0 {
		t.Errorf("the table lacks %v", declared)
	}
	if got := Code("brand_new").Info(); got.Code != CodeInternal {
		t.Errorf("a code that nobody knows is said to be %+v", got)
	}
}
