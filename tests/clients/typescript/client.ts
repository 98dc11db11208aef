// A client of the operator API in TypeScript, made of generated code: it lists the models, and moves the traffic of one.
//
//   node dist/client.js ADDRESS MODEL VERSION
//
// It prints one JSON object: the models, the revision of the switch, and the reason of the error that a stale etag gives.

import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

import { ModelService, SwitchTrafficRequestSchema } from "./gen/turnout/v1/model_service_pb.js";
import { RevisionService } from "./gen/turnout/v1/revision_service_pb.js";

interface Report {
  models: string[];
  revision: number;
  complete: boolean;
  error: string;
}

async function run(address: string, model: string, version: string): Promise<Report> {
  const transport = createGrpcTransport({ baseUrl: `http://${address}`, defaultTimeoutMs: 30_000 });
  const models = createClient(ModelService, transport);
  const report: Report = { models: [], revision: 0, complete: false, error: "" };

  let pageToken = "";
  do {
    const page = await models.listModels({ pageSize: 1, pageToken });
    report.models.push(...page.models.map((m) => m.name));
    pageToken = page.nextPageToken;
  } while (pageToken !== "");

  const live = await models.getModel({ name: model });
  const request = create(SwitchTrafficRequestSchema, {
    switches: [{ model, target: { case: "version", value: version }, etag: live.model?.etag ?? "" }],
    reason: "from TypeScript",
  });
  const done = await models.switchTraffic(request);
  report.revision = Number(done.revision?.number);

  for await (const message of createClient(RevisionService, transport).watchRevision({ name: done.revision?.name ?? "" })) {
    report.complete = message.progress?.complete ?? false;
  }

  try {
    // The same request again: its etag is stale by now.
    await models.switchTraffic(request);
  } catch (error) {
    report.error = Code[ConnectError.from(error).code] ?? "";
  }
  return report;
}

const [address = "", model = "", version = ""] = process.argv.slice(2);
console.log(JSON.stringify(await run(address, model, version)));
