// lora-convert spec BASE

#include <CLI/CLI.hpp>
#include <memory>

#include "lib/model/base_model.h"
#include "tools/convert/commands.h"
#include "tools/load_options.h"

namespace moelora {
namespace {

struct SpecFlags {
  CommonOptions common;
  std::string base;
  bool follow_links = false;
};

int run(SpecFlags& flags) {
  open_output(flags.common, {flags.base});
  const JobControl job = shown_job(flags.common.quiet);
  const Json family =
      derived_family_of(flags.base, flags.follow_links ? Links::all : Links::within);
  print_data(flags.common, family.dump() + "\n");
  print_note(flags.common, kConvertTool,
             "review what it says, above all \"unknown\", and pass it with --model-spec");
  return kClean;
}

}  // namespace

Command add_spec(CLI::App& app) {
  const auto flags = std::make_shared<SpecFlags>();
  CLI::App* sub = app.add_subcommand(
      "spec", "Write what a model's own names and shapes say of it as a file for --model-spec");
  sub->add_option("BASE", flags->base, "Model folder with config.json and safetensors weights")
      ->required();
  add_links_flag(*sub, flags->follow_links);
  add_common_options(*sub, flags->common);
  sub->footer(examples({"lora-convert spec my-model --output my-model.json",
                        "lora-convert adapter my-adapter out --to peft-linear --base my-model "
                        "--model-spec my-model.json"}));
  return {sub, [flags] { return run(*flags); }};
}

}  // namespace moelora
