// Training in a rank: opens the job, joins groups, makes steps, writes its parts of checkpoints.
#pragma once

#include <memory>

#include "jobs/rank/work.h"

namespace tutti::rank {

std::unique_ptr<Work> make_train_work();

}  // namespace tutti::rank
