// render CHART VALUES RELEASE NAMESPACE: what `helm template` prints, from Helm's own parts: Go's templates and sprig.
//
// VALUES is a file laid over the chart's values. `lookup` finds nothing, as in `helm template`.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
	"gopkg.in/yaml.v3"
)

type object = map[string]interface{}

// Through JSON, as Helm does: every number is a float64.
func read(file string) object {
	text, err := os.ReadFile(file)
	check(err)
	var raw interface{}
	check(yaml.Unmarshal(text, &raw))
	through, err := json.Marshal(raw)
	check(err)
	read := object{}
	check(json.Unmarshal(through, &read))
	return read
}

func merge(over, into object) object {
	for key, value := range over {
		inner, both := value.(object)
		old, have := into[key].(object)
		if both && have {
			into[key] = merge(inner, old)
		} else {
			into[key] = value
		}
	}
	return into
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	chart, values, release, namespace := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	own := read(filepath.Join(chart, "Chart.yaml"))
	about := object{}
	for key, value := range own {
		about[strings.ToUpper(key[:1])+key[1:]] = value
	}
	context := object{
		"Values":       merge(read(values), read(filepath.Join(chart, "values.yaml"))),
		"Chart":        about,
		"Release":      object{"Name": release, "Namespace": namespace, "Service": "Helm", "IsInstall": true, "IsUpgrade": false, "Revision": 1},
		"Capabilities": object{"KubeVersion": object{"Version": "v1.31.0", "Major": "1", "Minor": "31"}},
	}

	all := template.New("chart").Option("missingkey=zero")
	functions := sprig.TxtFuncMap()
	delete(functions, "env")
	delete(functions, "expandenv")
	functions["include"] = func(name string, data interface{}) (string, error) {
		var text bytes.Buffer
		err := all.ExecuteTemplate(&text, name, data)
		return text.String(), err
	}
	functions["toYaml"] = func(value interface{}) string {
		var text bytes.Buffer
		encoder := yaml.NewEncoder(&text)
		encoder.SetIndent(2)
		check(encoder.Encode(value))
		return strings.TrimSuffix(text.String(), "\n")
	}
	functions["lookup"] = func(string, string, string, string) object { return object{} }
	functions["required"] = func(message string, value interface{}) (interface{}, error) {
		if value == nil || value == "" {
			return nil, fmt.Errorf("%s", message)
		}
		return value, nil
	}
	all.Funcs(functions)

	var names []string
	check(filepath.Walk(filepath.Join(chart, "templates"), func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		check(err)
		_, err = all.New(path).Parse(string(text))
		check(err)
		if strings.HasSuffix(path, ".yaml") {
			names = append(names, path)
		}
		return nil
	}))
	for _, name := range names {
		var text bytes.Buffer
		check(all.ExecuteTemplate(&text, name, context))
		if strings.TrimSpace(text.String()) != "" {
			fmt.Printf("---\n# Source: %s\n%s\n", name, strings.Replace(text.String(), "<no value>", "", -1))
		}
	}
	// What `helm install` says in the end.
	var notes bytes.Buffer
	check(all.ExecuteTemplate(&notes, filepath.Join(chart, "templates/NOTES.txt"), context))
	fmt.Fprint(os.Stderr, notes.String())
}
