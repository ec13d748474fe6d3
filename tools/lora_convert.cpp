// lora-convert: adapters (and batched base experts) between the layouts of trainers and servers.

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "lib/adapter/convert.h"
#include "lib/adapter/init.h"
#include "lib/adapter/inspect.h"
#include "lib/base/error.h"
#include "lib/base/utf8.h"
#include "lib/check/rule.h"
#include "lib/compare/verify_conversion.h"
#include "lib/engine/fit/fit.h"
#include "lib/engine/fit/verify_fit.h"
#include "lib/model/base_convert.h"
#include "tools/convert/buffers.h"
#include "tools/load_options.h"
#include "tools/sizes.h"
#include "tools/tool.h"

namespace moelora {
namespace {

constexpr const char* kTool = "lora-convert";

DType parse_dtype(const std::string& text) {
  return text == "f32" ? DType::F32 : text == "f16" ? DType::F16 : DType::BF16;
}

WriteFolderOptions folder_options(const CommonOptions& common, bool force, bool no_sync,
                                  const std::string& shard_size) {
  WriteFolderOptions out;
  out.output = {force, !no_sync};
  out.weights.threads = common.threads;
  out.weights.job = shown_job(common.quiet);
  if (!shard_size.empty()) out.weights.max_shard_size = parse_size("--max-shard-size", shard_size);
  return out;
}

// ---- inspect ---------------------------------------------------------------------------------

struct Inspect {
  CommonOptions common;
  LoadFlags load;
  std::string format = "text";

  CLI::App* add(CLI::App& app) {
    CLI::App* sub = app.add_subcommand(
        "inspect", "What is this: layout, modules, ranks, scales, what is ambiguous");
    sub->add_option("PATH", load.path, "Adapter folder, weights file, model folder")->required();
    add_load_options(*sub, load);
    add_zip_flag(*sub, load);
    sub->add_option("--format", format, "text or json")->check(CLI::IsMember({"text", "json"}));
    add_common_options(*sub, common);
    return sub;
  }

  int run() const {
    const Inspection found = inspect(load.path, load.options());
    print_data(common, format == "json" ? inspection_json(found) : inspection_text(found));
    return kClean;
  }
};

// ---- adapter ---------------------------------------------------------------------------------

// --for and what belongs to it.
struct FitFlags {
  std::string engine;
  std::vector<std::string> server_options, drops;

  void add(CLI::App& app) {
    app.add_option("--for", engine,
                   "Repair for and write what this server loads: sglang, vllm, peft, or "
                   "sglang@0.5.18")
        ->type_name("ENGINE");
    app.add_option("--server-option", server_options,
                   "How the server is started: virtual-experts=on, tp-size=2, ...; tp-rank=N says "
                   "whose buffers are written")
        ->type_name("KEY=VALUE")
        ->allow_extra_args(false);
    app.add_option("--drop", drops,
                   "Leave out what the engine cannot hold: router, bias, saved-modules, embeddings")
        ->type_name("PART")
        ->allow_extra_args(false);
  }

  EngineChoice choice() const { return parse_engine(engine); }

  FitOptions options(const std::string& to, int threads) const {
    FitOptions o{choice(), {}, server_options, to, {}, threads};
    for (const std::string& pair : server_options)
      set_server_option(o.server, pair, {&o.engine, 1});
    for (const std::string& drop : drops) o.drop.insert(parse_drop(drop));
    return o;
  }

  void check_alone(const std::string& to) const {
    if (to.empty())
      throw Error("adapter", "neither --for nor --to is given", "say --for ENGINE or --to LAYOUT");
    if (!server_options.empty())
      throw Error("--server-option", "is there without --for", "name the server with --for");
    if (!drops.empty())
      throw Error("--drop", "is there without --for: a layout alone drops nothing",
                  "name the server with --for");
  }
};

struct AdapterCommand {
  CommonOptions common;
  LoadFlags load;
  FitFlags fit;
  StackedFlags out_side;
  std::string out, to, names = "family", dtype = "keep", max_shard_size;
  bool verify = false, dry_run = false, force = false, no_sync = false;

  CLI::App* add(CLI::App& app) {
    CLI::App* sub = app.add_subcommand("adapter", "Rewrite an adapter in another layout");
    sub->add_option("IN", load.path, "Adapter folder or weights file")->required();
    sub->add_option("OUT", out, "Output folder; appears complete or not at all")->required();
    sub->add_option("--to", to,
                    "Layout to write (with --for: instead of the engine's own), or what a server "
                    "holds: sglang-pool, vllm-stacked")
        ->type_name("LAYOUT");
    fit.add(*sub);
    add_load_options(*sub, load);
    add_zip_flag(*sub, load);
    sub->add_option("--out-b-order", out_side.b_order, "Columns of the written stacked lora_B")
        ->type_name("ORDER");
    sub->add_option("--out-roles", out_side.roles, "Side of the written stacked lora_A")
        ->type_name("ROLES");
    sub->add_option("--names", names,
                    "family: w1/w3/w2 where the base says so; canonical: gate/up/down")
        ->check(CLI::IsMember({"family", "canonical"}));
    sub->add_option("--dtype", dtype, "keep, f32, f16 or bf16")
        ->check(CLI::IsMember({"keep", "f32", "f16", "bf16"}));
    sub->add_option("--max-shard-size", max_shard_size,
                    "Split the weights: 5GB, 500MB (PEFT reads one file only)")
        ->type_name("SIZE");
    sub->add_flag("--verify", verify, "Derive every element from the input anew and compare");
    sub->add_flag("--dry-run", dry_run, "Say what would be written");
    sub->add_flag("--force", force, "Replace an existing output folder");
    sub->add_flag("--no-sync", no_sync, "Do not wait for the disk (no fsync)");
    add_common_options(*sub, common);
    return sub;
  }

  PlanOptions options() const {
    PlanOptions o;
    o.to = to;
    o.threads = common.threads;
    o.load = load.options();
    o.layout.canonical_names = names == "canonical";
    o.layout.b_order = out_side.order("--out-b-order").value_or(BOrder::rank_major);
    o.layout.roles = out_side.role("--out-roles").value_or(Roles::natural);
    if (dtype != "keep") o.dtype = parse_dtype(dtype);
    return o;
  }

  std::string table(const Conversion& c) const {
    return module_table(module_rows(c.adapter), c.to != nullptr ? c.to->id : "dense");
  }

  std::string plan_text(const Conversion& c) const {
    uint64_t bytes = 0;
    for (const auto& entry : c.tensors) bytes += entry.second.bytes();
    std::string text =
        fmt::format("would write {}: {} tensors, {}\n", out, c.tensors.size(), size_text(bytes));
    for (const auto& [name, tensor] : c.tensors)
      text +=
          fmt::format("  {} {} {}\n", name, dtype_name(tensor.dtype()), to_string(tensor.shape()));
    return text + "\n" + table(c) + "\nadapter_config.json:\n" + c.config.dump() + "\n";
  }

  // Fitted for the engine and judged by its plan.
  Conversion fitted(uint64_t shard_size) const {
    if (!out_side.b_order.empty() || !out_side.roles.empty())
      throw Error("--for",
                  "says how stacked pairs are written: --out-b-order and --out-roles do not "
                  "go with it",
                  "leave them out, or use --to alone");
    const FitOptions how = fit.options(to, common.threads);
    FittedConversion made = plan_fitted(read_input(load.path, options()), how, options());
    check_served(made.conversion, out, how, shard_size);
    if (verify) verify_fit(made.meant, made.conversion.adapter, common.threads);
    return std::move(made.conversion);
  }

  Conversion planned(uint64_t shard_size) const {
    if (!fit.engine.empty()) return fitted(shard_size);
    fit.check_alone(to);
    return plan_conversion(load.path, options());
  }

  // What says how an adapter is read or written says nothing of a server's buffers.
  void check_buffer_flags() const {
    const std::pair<const char*, bool> given[] = {{"--from", !load.from.empty()},
                                                  {"--b-order", !load.in.b_order.empty()},
                                                  {"--roles", !load.in.roles.empty()},
                                                  {"--out-b-order", !out_side.b_order.empty()},
                                                  {"--out-roles", !out_side.roles.empty()},
                                                  {"--names", names != "family"},
                                                  {"--dtype", dtype != "keep"},
                                                  {"--drop", !fit.drops.empty()}};
    for (const auto& [flag, is_given] : given)
      if (is_given)
        throw Error(flag, fmt::format("does not go with --to {}: the files are read and the "
                                      "buffers written as the server does",
                                      to));
  }

  int run_buffers(const WriteFolderOptions& folder) const {
    check_buffer_flags();
    const BufferOptions buffers{to,        fit.engine,       fit.server_options,
                                load.base, load.model_specs, rule_name};
    return BuffersCommand{common, load.path, out, buffers, {folder.output, folder.weights, verify},
                          dry_run}
        .run();
  }

  std::string verified_text(const Conversion& c, int64_t factors) const {
    if (!c.changes || c.changes->made.empty())
      return fmt::format("verified: {} factors identical\n", factors);
    return fmt::format(
        "verified: {} factors as planned; the deltas are the input's within one rounding\n",
        factors);
  }

  int run() const {
    WriteFolderOptions folder = folder_options(common, force, no_sync, max_shard_size);
    if (find_buffer_engine(to) != nullptr) return run_buffers(folder);
    const Conversion c = planned(folder.weights.max_shard_size);
    for (const std::string& note : c.notes) print_note(common, kTool, note);
    if (dry_run) {
      print_data(common, plan_text(c));
      return kClean;
    }
    if (verify) folder.verify = packed_verifier(load.path, common.threads);
    const WrittenConversion written = write_conversion(c, out, folder);
    std::string text = table(c);
    text += fmt::format("wrote {}: {} tensors, {}\n", out, written.weights.tensors.size(),
                        size_text(written.weights.bytes));
    if (verify) text += verified_text(c, written.verified);
    print_data(common, text);
    return kClean;
  }
};

// ---- init ------------------------------------------------------------------------------------

struct Init {
  CommonOptions common;
  InitOptions options;
  std::string out, dtype = "f32", max_shard_size;
  bool force = false, zero_b = false, no_sync = false;

  CLI::App* add(CLI::App& app) {
    CLI::App* sub = app.add_subcommand("init", "Write a fresh adapter for a base model");
    sub->add_option("OUT", out, "Output folder; appears complete or not at all")->required();
    sub->add_option("--base", options.base, "Base model: folder, config.json or hub name")
        ->type_name("BASE")
        ->required();
    sub->add_option("--rank", options.rank, "Rank of every pair (of one expert)")
        ->type_name("R")
        ->required()
        ->check(CLI::Range(1, 65536));
    sub->add_option("--alpha", options.alpha, "lora_alpha (default: as the rank, scale 1)")
        ->type_name("X")
        ->check(CLI::PositiveNumber);
    sub->add_option("--targets", options.targets,
                    "attention, mixer, mlp, shared, experts, lm_head; comma-separated")
        ->type_name("LIST")
        ->delimiter(',')
        ->required();
    sub->add_option("--to", options.to, "Layout to write")->type_name("LAYOUT")->required();
    sub->add_option("--model-spec", options.model_specs, "A model family to add")
        ->type_name("FILE");
    sub->add_option("--seed", options.seed, "Seed of the random factors (default: 0)")
        ->type_name("N");
    sub->add_flag("--shared-outer", options.shared_outer,
                  "One gate/up A and one down B for all experts of a layer");
    CLI::Option* random = sub->add_flag("--random-b", options.random_b,
                                        "B random too, so that the adapter has an effect");
    sub->add_flag("--zero-b", zero_b, "B zero, as PEFT starts (the default)")->excludes(random);
    sub->add_option("--dtype", dtype, "f32, f16 or bf16")
        ->check(CLI::IsMember({"f32", "f16", "bf16"}));
    sub->add_option("--max-shard-size", max_shard_size, "Split the weights: 5GB, 500MB")
        ->type_name("SIZE");
    sub->add_flag("--force", force, "Replace an existing output folder");
    sub->add_flag("--no-sync", no_sync, "Do not wait for the disk (no fsync)");
    add_common_options(*sub, common);
    return sub;
  }

  int run() {
    options.dtype = parse_dtype(dtype);
    const Conversion fresh = make_adapter(options);
    const WrittenWeights written =
        write_adapter(fresh, out, folder_options(common, force, no_sync, max_shard_size));
    print_data(common, module_table(module_rows(fresh.adapter),
                                    fresh.to != nullptr ? fresh.to->id : "dense") +
                           fmt::format("wrote {}: {} tensors, {}\n", out, written.tensors.size(),
                                       size_text(written.bytes)));
    return kClean;
  }
};

// ---- base ------------------------------------------------------------------------------------

struct Base {
  CommonOptions common;
  BaseConversion options;
  std::string to, dtype = "keep", layers, max_shard_size;
  bool no_sync = false;

  CLI::App* add(CLI::App& app) {
    CLI::App* sub = app.add_subcommand("base", "Rewrite how a base checkpoint stores its experts");
    sub->add_option("IN", options.in, "Model folder, or a hub name in the local cache")->required();
    sub->add_option("OUT", options.out, "Output folder; appears complete or not at all")
        ->required();
    sub->add_option("--to", to,
                    "per-expert: one Linear an expert and projection; fused: batched parameters")
        ->check(CLI::IsMember({"per-expert", "fused"}))
        ->required();
    sub->add_option("--dtype", dtype, "keep, or bf16 (MXFP4 is decoded to BF16 in any case)")
        ->check(CLI::IsMember({"keep", "bf16"}));
    sub->add_option("--layers", layers, "Only layers A to B, from 0: a cut for tests")
        ->type_name("A-B");
    sub->add_option("--model-spec", options.model_specs, "A model family to add")
        ->type_name("FILE");
    sub->add_option("--max-shard-size", max_shard_size, "Split the weights: 5GB, 500MB")
        ->type_name("SIZE");
    sub->add_flag("--verify", options.verify,
                  "Read the output back and compare it with a second evaluation");
    sub->add_flag("--dry-run", options.dry_run, "Check everything, write nothing");
    sub->add_flag("--force", options.force, "Replace an existing output folder");
    sub->add_flag("--no-sync", no_sync, "Do not wait for the disk (no fsync)");
    add_common_options(*sub, common);
    return sub;
  }

  int run() {
    options.to = to == "fused" ? ExpertForm::fused : ExpertForm::per_expert;
    options.to_bf16 = dtype == "bf16";
    if (!layers.empty()) options.layers = parse_layers("--layers", layers);
    if (!max_shard_size.empty())
      options.max_shard_size = parse_size("--max-shard-size", max_shard_size);
    options.threads = common.threads;
    options.durable = !no_sync;
    const BaseConversionReport report = convert_base(options);
    for (const std::string& change : report.changes) print_note(common, kTool, change);
    for (const std::string& name : report.left_out) print_note(common, kTool, "left out: " + name);
    std::string text = fmt::format("{}: experts of {} layers from {} to {}\n", report.family,
                                   report.expert_layers, report.from, report.to);
    if (options.verify && !options.dry_run)
      text += fmt::format("verified: {} tensors identical\n", report.verified);
    text += fmt::format("{} {}: {} tensors, {}\n", options.dry_run ? "would write" : "wrote",
                        options.out, report.tensors, size_text(report.bytes));
    print_data(common, text);
    return kClean;
  }
};

}  // namespace

int main_(int argc, char** argv) {
  CLI::App app("Rewrites MoE LoRA adapters between the layouts of trainers and servers", kTool);
  app.set_version_flag("--version", [] { return version_line(kTool); });
  app.require_subcommand(1);
  Inspect inspect_command;
  AdapterCommand adapter_command;
  Init init_command;
  Base base_command;
  CLI::App* inspect_app = inspect_command.add(app);
  CLI::App* adapter_app = adapter_command.add(app);
  CLI::App* init_app = init_command.add(app);
  CLI::App* base_app = base_command.add(app);
  return run_tool(app, argc, argv, [&] {
    if (inspect_app->parsed()) return inspect_command.run();
    if (adapter_app->parsed()) return adapter_command.run();
    if (init_app->parsed()) return init_command.run();
    if (base_app->parsed()) return base_command.run();
    return kFailed;
  });
}

}  // namespace moelora

int main(int argc, char** argv) { return moelora::main_(argc, argv); }
