// lora-convert base IN OUT

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "lib/base/utf8.h"
#include "lib/model/base_convert.h"
#include "tools/convert/commands.h"
#include "tools/load_options.h"
#include "tools/sizes.h"

namespace moelora {
namespace {

struct BaseFlags {
  CommonOptions common;
  WriteFlags write;
  BaseConversion options;
  std::string to, dtype = "keep", layers, part;
  bool follow_links = false;
};

std::string report_text(const BaseConversionReport& report, const BaseConversion& options) {
  std::string text =
      fmt::format("{}: experts of {} layers from {} to {}\n", printable(report.family),
                  report.expert_layers, report.from, report.to);
  if (options.verify && !options.dry_run)
    text += fmt::format("verified: {} tensors identical\n", report.verified);
  return text + fmt::format("{} {}: {} tensors, {}\n", options.dry_run ? "would write" : "wrote",
                            printable(options.out), report.tensors, size_text(report.bytes));
}

void print(const BaseConversionReport& report, const BaseFlags& flags) {
  for (const std::string& change : report.changes) print_note(flags.common, kConvertTool, change);
  for (const std::string& note : report.notes) print_note(flags.common, kConvertTool, note);
  for (const std::string& name : report.left_out)
    print_note(flags.common, kConvertTool, "left out: " + name);
  print_data(flags.common, report_text(report, flags.options));
}

int run(BaseFlags& flags) {
  BaseConversion& options = flags.options;
  options.to = flags.to == "fused" ? ExpertForm::fused : ExpertForm::per_expert;
  options.to_bf16 = flags.dtype == "bf16";
  if (!flags.layers.empty()) options.layers = parse_layers("--layers", flags.layers);
  if (!flags.part.empty()) {
    const auto [number, count] = parse_part("--part", flags.part);
    options.part = {number, count};
  }
  options.max_shard_size = flags.write.shard_size();
  options.force = flags.write.force;
  options.durable = !flags.write.no_sync;
  options.threads = flags.common.threads;
  options.job = shown_job(flags.common.quiet);
  options.links = links_of(flags.follow_links);
  std::vector<std::string> inputs = options.model_specs;
  inputs.push_back(options.in);
  open_output(flags.common, inputs, options.out);
  options.ready = [&](const BaseConversionReport& report) { print(report, flags); };
  const BaseConversionReport report = convert_base(options);
  if (options.dry_run) print(report, flags);
  if (!report.left_behind.empty()) print_note(flags.common, kConvertTool, report.left_behind);
  return kClean;
}

}  // namespace

Command add_base(CLI::App& app) {
  const auto flags = std::make_shared<BaseFlags>();
  BaseConversion& options = flags->options;
  CLI::App* sub = app.add_subcommand("base", "Rewrite how a base checkpoint stores its experts");
  sub->add_option("IN", options.in, "Model folder, or a hub name in the local cache")->required();
  sub->add_option("OUT", options.out, "Output folder; appears complete or not at all")->required();
  add_choice(*sub, "--to", flags->to,
             "per-expert: one Linear per expert and projection; fused: batched parameters",
             {"per-expert", "fused"})
      ->required();
  add_choice(*sub, "--dtype", flags->dtype, "keep, or bf16 (MXFP4 is decoded to BF16 in any case)",
             {"keep", "bf16"});
  sub->add_option("--layers", flags->layers, "Only layers A to B, from 0: a cut for tests")
      ->type_name("A-B");
  sub->add_option("--part", flags->part, "Only part K of N: the layers shared out over machines")
      ->type_name("K/N");
  sub->add_option("--model-spec", options.model_specs, "A model family to add")->type_name("FILE");
  add_links_flag(*sub, flags->follow_links);
  sub->add_flag("--verify", options.verify,
                "Read the output back and compare it with a second evaluation");
  sub->add_flag("--dry-run", options.dry_run, "Check everything, write nothing");
  add_write_options(*sub, flags->write, "Split the weights: 5GB, 500MB");
  add_common_options(*sub, flags->common);
  sub->footer(examples({"lora-convert base gpt-oss-20b per-expert --to per-expert --verify",
                        "lora-convert base gpt-oss-20b two-layers --to fused --layers 0-1"}));
  return {sub, [flags] { return run(*flags); }};
}

}  // namespace moelora
