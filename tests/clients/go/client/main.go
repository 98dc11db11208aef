// A client of the operator API in Go, made of generated code: it lists the models, and moves the traffic of one.
//
//	client ADDRESS MODEL VERSION
//
// It prints one JSON object: the models, the revision of the switch, and the reason of the error that a stale etag gives.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	turnout "turnout.dev/gen/turnout/v1"
)

type report struct {
	Models   []string `json:"models"`
	Revision int64    `json:"revision"`
	Complete bool     `json:"complete"`
	Error    string   `json:"error"`
}

func main() {
	result, err := run(os.Args[1], os.Args[2], os.Args[3])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		panic(err)
	}
}

func run(address, model, version string) (*report, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	models := turnout.NewModelServiceClient(connection)

	result := &report{}
	for token := ""; ; {
		page, err := models.ListModels(ctx, &turnout.ListModelsRequest{PageSize: 1, PageToken: token})
		if err != nil {
			return nil, err
		}
		for _, m := range page.GetModels() {
			result.Models = append(result.Models, m.GetName())
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}

	live, err := models.GetModel(ctx, &turnout.GetModelRequest{Name: model})
	if err != nil {
		return nil, err
	}
	request := &turnout.SwitchTrafficRequest{
		Switches: []*turnout.TrafficSwitch{{
			Model:  model,
			Target: &turnout.TrafficSwitch_Version{Version: version},
			Etag:   live.GetModel().GetEtag(),
		}},
		Reason: "from Go",
	}
	done, err := models.SwitchTraffic(ctx, request)
	if err != nil {
		return nil, err
	}
	result.Revision = done.GetRevision().GetNumber()

	watch, err := turnout.NewRevisionServiceClient(connection).WatchRevision(
		ctx, &turnout.WatchRevisionRequest{Name: done.GetRevision().GetName()})
	if err != nil {
		return nil, err
	}
	for !result.Complete {
		message, err := watch.Recv()
		if err != nil {
			return nil, err
		}
		result.Complete = message.GetProgress().GetComplete()
	}

	// The same request again: its etag is stale by now.
	_, err = models.SwitchTraffic(ctx, request)
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			result.Error = info.GetReason()
		}
	}
	return result, nil
}
