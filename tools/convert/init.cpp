// lora-convert init OUT

#include "lib/adapter/init.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <set>

#include "lib/adapter/inspect.h"
#include "lib/base/utf8.h"
#include "tools/convert/commands.h"
#include "tools/convert/demo.h"
#include "tools/load_options.h"

namespace moelora {
namespace {

struct InitFlags {
  CommonOptions common;
  WriteFlags write;
  InitOptions options;
  std::string out, dtype = "f32";
  const CLI::App* app = nullptr;  // this command, as it was parsed
  bool demo = false, zero_b = false, follow_links = false;
};

// What has a meaning beside --demo; all else is about an adapter that is made.
void refuse_beside_demo(const CLI::App& app) {
  const std::set<std::string> fit = {"OUT",     "--demo",     "--no-sync", "--output",
                                     "--quiet", "--no-color", "--threads"};
  for (const CLI::Option* option : app.get_options())
    if (option->count() > 0 && fit.count(option->get_name()) == 0)
      throw Error(Location{{}, 0, 0, option->get_name(), {}},
                  "says nothing of the demo, which is always the same", "leave it out");
}

int run_demo(InitFlags& flags) {
  refuse_beside_demo(*flags.app);
  open_output(flags.common, {}, flags.out);
  write_demo(flags.out, !flags.write.no_sync, [&](const Demo& demo) {
    print_data(flags.common, fmt::format("wrote {}: {} files, {}; its README.md says what to try\n",
                                         printable(flags.out), demo.files, size_text(demo.bytes)));
  });
  return kClean;
}

int run(InitFlags& flags) {
  if (flags.demo) return run_demo(flags);
  std::vector<std::string> inputs = flags.options.model_specs;
  inputs.push_back(flags.options.base);
  open_output(flags.common, inputs, flags.out);
  flags.options.dtype = *dtype_of(flags.dtype);
  flags.options.links = links_of(flags.follow_links);
  const Conversion fresh = make_adapter(flags.options);
  WriteFolderOptions folder;
  folder.output = {flags.write.force, !flags.write.no_sync};
  folder.weights.threads = flags.common.threads;
  folder.weights.max_shard_size = flags.write.shard_size();
  folder.weights.job = shown_job(flags.common.quiet);
  folder.ready = [&](const WrittenConversion& written) {
    print_data(
        flags.common,
        module_table(module_rows(fresh.adapter), fresh.to != nullptr ? fresh.to->id : "dense") +
            fmt::format("wrote {}: {} tensors, {}\n", printable(flags.out),
                        written.weights.tensors.size(), size_text(written.weights.bytes)));
  };
  const WrittenConversion written = write_conversion(fresh, flags.out, folder);
  for (const std::string& note : fresh.notes) print_note(flags.common, kConvertTool, note);
  if (!written.left_behind.empty()) print_note(flags.common, kConvertTool, written.left_behind);
  return kClean;
}

void add_shape_options(CLI::App& app, InitOptions& options) {
  app.add_option("--base", options.base, "Base model: folder, config.json or hub name")
      ->type_name("BASE")
      ->required();
  app.add_option("--rank", options.rank, "Rank of every pair (per expert)")
      ->type_name("R")
      ->required()
      ->check(CLI::Range(1, 65536));
  app.add_option("--alpha", options.alpha, "lora_alpha (default: as the rank, scale 1)")
      ->type_name("X")
      ->check(CLI::PositiveNumber);
  app.add_option("--targets", options.targets,
                 "attention, mixer, mlp, shared, experts, lm_head; comma-separated")
      ->type_name("LIST")
      ->delimiter(',')
      ->required();
  app.add_option("--to", options.to, "Layout to write")->type_name(layout_type())->required();
  app.add_option("--model-spec", options.model_specs, "A model family to add")->type_name("FILE");
}

void add_value_options(CLI::App& app, InitFlags& flags) {
  app.add_option("--seed", flags.options.seed, "Seed of the random factors (default: 0)")
      ->type_name("N");
  app.add_flag("--shared-outer", flags.options.shared_outer,
               "One gate/up A and one down B for all experts of a layer");
  CLI::Option* random = app.add_flag("--random-b", flags.options.random_b,
                                     "B random too, so that the adapter has an effect");
  app.add_flag("--zero-b", flags.zero_b, "B zero, as PEFT starts (the default)")->excludes(random);
  add_choice(app, "--dtype", flags.dtype, "Type of the factors", {"f32", "f16", "bf16"});
}

}  // namespace

Command add_init(CLI::App& app) {
  const auto flags = std::make_shared<InitFlags>();
  CLI::App* sub = app.add_subcommand("init", "Write a fresh adapter for a base model");
  sub->add_option("OUT", flags->out, "Output folder; appears complete or not at all")->required();
  flags->app = sub;
  // The options of an adapter that is made are required unless this is given.
  sub->add_flag_callback(
      "--demo",
      [flags, sub] {
        flags->demo = true;
        for (CLI::Option* option : sub->get_options())
          if (!option->get_positional()) option->required(false);
      },
      "Write the small base model and adapters that README.md's commands are about");
  add_shape_options(*sub, flags->options);
  add_links_flag(*sub, flags->follow_links);
  add_value_options(*sub, *flags);
  add_write_options(*sub, flags->write, "Split the weights: 5GB, 500MB");
  add_common_options(*sub, flags->common);
  sub->footer(
      examples({"lora-convert init fresh --base openai/gpt-oss-20b --rank 8 --targets "
                "attention,experts --to peft-params",
                "lora-convert init test-adapter --base BASE --rank 4 --targets experts --to "
                "stacked --random-b",
                "lora-convert init --demo DIR"}));
  return {sub, [flags] { return run(*flags); }};
}

}  // namespace moelora
