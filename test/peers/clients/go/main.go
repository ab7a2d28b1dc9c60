// A client that oapi-codegen made, against a vault that runs: create, list, read, patch, bulk.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	bearer := func(_ context.Context, request *http.Request) error {
		request.Header.Set("Authorization", "Bearer "+os.Getenv("PEER_TOKEN"))
		return nil
	}
	client, err := NewClientWithResponses(os.Getenv("PEER_URL"), WithRequestEditorFn(bearer))
	if err != nil {
		return err
	}
	team := os.Getenv("PEER_TEAM")
	fields, err := secret("sk-of-go")
	if err != nil {
		return err
	}
	create := CredentialCreate{Name: "from-go", Type: "openai", Fields: fields}
	created, err := client.CreateCredentialWithResponse(ctx, team, &CreateCredentialParams{}, create)
	if err != nil {
		return err
	}
	if created.JSON201 == nil {
		return fmt.Errorf("create: %s %s", created.Status(), created.Body)
	}
	again, err := client.CreateCredentialWithResponse(ctx, team, &CreateCredentialParams{}, create)
	if err != nil {
		return err
	}
	if again.ApplicationproblemJSON409 == nil || again.ApplicationproblemJSON409.Code != "nameTaken" {
		return fmt.Errorf("a name that is taken: %s %s", again.Status(), again.Body)
	}
	prefix := "from-go"
	listed, err := client.ListTeamCredentialsWithResponse(ctx, team, &ListTeamCredentialsParams{NamePrefix: &prefix})
	if err != nil {
		return err
	}
	if listed.JSON200 == nil {
		return fmt.Errorf("list: %s %s", listed.Status(), listed.Body)
	}
	page, err := listed.JSON200.AsCredentialPage()
	if err != nil || len(page.Items) != 1 {
		return fmt.Errorf("list: %v %s", err, listed.Body)
	}
	read, err := client.GetCredentialWithResponse(ctx, created.JSON201.Id)
	if err != nil {
		return err
	}
	if read.JSON200 == nil || read.JSON200.Name != "from-go" || read.JSON200.Type != "openai" {
		return fmt.Errorf("read: %s %s", read.Status(), read.Body)
	}
	tag := read.HTTPResponse.Header.Get("ETag")
	labels := LabelsInput{"from": "go"}
	patched, err := client.UpdateCredentialWithResponse(ctx, created.JSON201.Id,
		&UpdateCredentialParams{IfMatch: tag}, CredentialUpdate{Labels: &labels})
	if err != nil {
		return err
	}
	if patched.JSON200 == nil || patched.JSON200.Labels["from"] != "go" {
		return fmt.Errorf("patch: %s %s", patched.Status(), patched.Body)
	}
	var item CredentialBulk_Items_Item
	if err := item.FromBulkCreate(BulkCreate{Name: "bulk-go", Type: "openai", Fields: fields}); err != nil {
		return err
	}
	done, err := client.ChangeCredentialsWithResponse(ctx, team, CredentialBulk{Items: []CredentialBulk_Items_Item{item}})
	if err != nil {
		return err
	}
	if done.JSON200 == nil || len(done.JSON200.Results) != 1 || done.JSON200.Results[0].Status != 201 {
		return fmt.Errorf("bulk: %s %s", done.Status(), done.Body)
	}
	return nil
}

func secret(value string) (*FieldsInput, error) {
	var field FieldsInput_AdditionalProperties
	if err := field.FromFieldsInput0(value); err != nil {
		return nil, err
	}
	return &FieldsInput{"apiKey": &field}, nil
}
