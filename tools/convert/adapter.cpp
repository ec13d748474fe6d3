// lora-convert adapter IN OUT

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <memory>

#include "lib/base/dotted_path.h"
#include "lib/base/utf8.h"
#include "lib/moelora.h"
#include "tools/convert/commands.h"
#include "tools/load_options.h"

namespace moelora {
namespace {

struct AdapterFlags {
  CommonOptions common;
  LoadFlags load;
  WriteFlags write;
  StackedFlags out_side;
  std::string out, to, engine, names = "family", dtype = "keep";
  std::vector<std::string> server_options, drops;
  bool verify = false, dry_run = false;

  ConvertOptions options() const {
    ConvertOptions o;
    static_cast<LoadOptions&>(o) = load.options();
    o.job = shown_job(common.quiet);
    o.to = to;
    o.engine = engine;
    o.server_options = server_options;
    o.drop = drops;
    o.out_b_order = out_side.order("--out-b-order");
    o.out_roles = out_side.role("--out-roles");
    o.canonical_names = names == "canonical";
    o.dtype = dtype_of(dtype);
    o.verify = verify;
    o.dry_run = dry_run;
    o.max_shard_size = write.shard_size();
    o.force = write.force;
    o.sync = !write.no_sync;
    o.threads = common.threads;
    return o;
  }
};

// ---- what is printed
// -----------------------------------------------------------------------------

// A buffer's name without the layer's number, and that.
std::pair<std::string, int> split_layer(const std::string& name) {
  const auto place = find_layer(name);
  if (!place) return {name, -1};
  const size_t layers = place->begin - std::string_view("layers.").size();
  return {name.substr(0, layers) + name.substr(place->end + 1), place->layer};
}

// One line for what several layers hold alike.
std::string buffer_table(const std::vector<TensorInfo>& buffers) {
  std::map<std::pair<std::string, std::string>, std::vector<int>> layers;
  for (const TensorInfo& buffer : buffers) {
    const auto [stem, layer] = split_layer(buffer.name);
    std::vector<int>& of = layers[{stem, to_string(buffer.shape)}];
    if (layer >= 0) of.push_back(layer);
  }
  std::vector<std::vector<std::string>> rows{{"buffer", "layers", "shape"}};
  for (auto& [key, of] : layers) {
    std::sort(of.begin(), of.end());
    rows.push_back({printable(key.first), of.empty() ? "-" : ranges(of), key.second});
  }
  return text_table(std::move(rows));
}

std::string buffers_text(const ConvertResult& c, const AdapterFlags& flags) {
  std::string text = buffer_table(c.tensors);
  text +=
      fmt::format("{} {}: rank {} of {}, {} buffers, {}\n", flags.dry_run ? "would write" : "wrote",
                  printable(flags.out), c.tp_rank, c.server, c.tensors.size(), size_text(c.bytes));
  if (flags.verify && !flags.dry_run)
    text += fmt::format("verified: {} buffers as computed\n", c.verified);
  return text;
}

std::string plan_text(const ConvertResult& c, const std::string& out) {
  std::string text = fmt::format("would write {}: {} tensors, {}\n", printable(out),
                                 c.tensors.size(), size_text(c.bytes));
  for (const TensorInfo& t : c.tensors)
    text += fmt::format("  {} {} {}\n", printable(t.name, 4096), dtype_name(t.dtype),
                        to_string(t.shape));
  return text + "\n" + module_table(c.modules, c.layout) + "\nadapter_config.json:\n" + c.config;
}

std::string written_text(const ConvertResult& c, const AdapterFlags& flags) {
  std::string text = module_table(c.modules, c.layout);
  text += fmt::format("wrote {}: {} tensors, {}\n", printable(flags.out), c.tensors.size(),
                      size_text(c.bytes));
  if (!flags.verify) return text;
  text += fmt::format(
      "verified: {} factors {}\n", c.verified,
      c.repaired ? "as planned; deltas match the input to within one rounding step" : "identical");
  if (c.same_product > 0)
    text += fmt::format(
        "verified: {} pairs have other values, and the same product to 1e-07 of "
        "its norm\n",
        c.same_product);
  return text;
}

void print(const ConvertResult& c, const AdapterFlags& flags) {
  for (const std::string& note : c.notes) print_note(flags.common, kConvertTool, note);
  print_data(flags.common, !c.server.empty() ? buffers_text(c, flags)
                           : flags.dry_run   ? plan_text(c, flags.out)
                                             : written_text(c, flags));
}

int run(AdapterFlags& flags) {
  open_output(flags.common, flags.load.inputs(), flags.out);
  ConvertOptions options = flags.options();
  options.ready = [&](const ConvertResult& c) { print(c, flags); };
  const ConvertResult c = convert(flags.load.path, flags.out, options);
  if (flags.dry_run) print(c, flags);
  if (!c.left_behind.empty()) print_note(flags.common, kConvertTool, c.left_behind);
  return kClean;
}

void add_engine_options(CLI::App& app, AdapterFlags& flags) {
  app.add_option(
         "--for", flags.engine,
         "Repair for and write what this server loads: sglang, vllm, peft, or sglang@0.5.23")
      ->type_name("ENGINE");
  app.add_option("--server-option", flags.server_options,
                 "How the server is started: virtual-experts=on, tp-size=2, ...; with --to a "
                 "server's buffers, tp-rank=N selects the rank")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  app.add_option("--drop", flags.drops,
                 "Leave out what the engine cannot hold: router, bias, saved-modules, embeddings, "
                 "vision, text, value-head")
      ->type_name("PART")
      ->allow_extra_args(false);
}

}  // namespace

Command add_adapter(CLI::App& app) {
  const auto flags = std::make_shared<AdapterFlags>();
  CLI::App* sub = app.add_subcommand("adapter", "Rewrite an adapter in another layout");
  sub->add_option("IN", flags->load.path, "Adapter folder or weights file")->required();
  sub->add_option("OUT", flags->out, "Output folder; appears complete or not at all")->required();
  sub->add_option("--to", flags->to,
                  "Layout to write (with --for: instead of the engine's own), another trainer's "
                  "adapter: mlx, or a server's buffers: sglang-pool, vllm-stacked")
      ->type_name(layout_type({"mlx", "sglang-pool", "vllm-stacked"}));
  add_engine_options(*sub, *flags);
  add_load_options(*sub, flags->load);
  add_zip_flag(*sub, flags->load);
  sub->add_option("--out-b-order", flags->out_side.b_order, "Columns of the written stacked lora_B")
      ->type_name(order_type());
  sub->add_option("--out-roles", flags->out_side.roles, "Side of the written stacked lora_A")
      ->type_name(roles_type());
  add_choice(*sub, "--names", flags->names,
             "family: w1/w3/w2 where the base says so; canonical: gate/up/down",
             {"family", "canonical"});
  add_choice(*sub, "--dtype", flags->dtype, "Cast every factor", {"keep", "f32", "f16", "bf16"});
  sub->add_flag("--verify", flags->verify, "Recompute every element from the input and compare");
  sub->add_flag("--dry-run", flags->dry_run, "Show what would be written");
  add_write_options(*sub, flags->write, "Split the weights: 5GB, 500MB (PEFT reads only one file)");
  add_common_options(*sub, flags->common);
  sub->footer(
      examples({"lora-convert adapter my-adapter served --for sglang --base openai/gpt-oss-20b",
                "lora-convert adapter my-adapter out --to peft-linear --base BASE --verify",
                "lora-convert adapter my-adapter out --for vllm@0.22 --base BASE --dry-run"}));
  return {sub, [flags] { return run(*flags); }};
}

}  // namespace moelora
