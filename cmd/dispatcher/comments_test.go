package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestComments holds every type, and whatever a file begins with, to having a comment:
// so a reader is told what each of them is for.
func TestComments(t *testing.T) {
	files := 0
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != "../.." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "node_modules"):
			return fs.SkipDir
		case entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		files++
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		for _, at := range uncommented(file) {
			t.Errorf("%v has no comment", set.Position(at))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 200 {
		t.Errorf("only %d files were found", files)
	}
}

// uncommented returns the types of a file that have no comment, and its first
// declaration if nothing before that says what the file is for.
func uncommented(file *ast.File) (at []token.Pos) {
	first := true
	for _, d := range file.Decls {
		doc, values := (*ast.CommentGroup)(nil), false
		switch d := d.(type) {
		case *ast.FuncDecl:
			doc = d.Doc
		case *ast.GenDecl:
			if d.Tok == token.IMPORT {
				continue
			}
			doc = d.Doc
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					if doc == nil && spec.Doc == nil {
						at = append(at, d.Pos())
					}
				case *ast.ValueSpec:
					values = values || spec.Doc != nil
				}
			}
		}
		if first && doc == nil && !values && len(at) == 0 && !introduced(file, d) {
			at = append(at, d.Pos())
		}
		first = false
	}
	return at
}

// introduced reports whether a comment stands between a file's package clause and a
// declaration, or is the package's own.
func introduced(file *ast.File, d ast.Decl) bool {
	return file.Doc != nil || slices.ContainsFunc(file.Comments, func(c *ast.CommentGroup) bool {
		return file.Name.End() < c.Pos() && c.End() < d.Pos()
	})
}
