"""BibTeX of the methods that a model can be built and taught by."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class _Paper:
    key: str
    title: str
    authors: str
    venue: str  # of proceedings; the empty string for a preprint
    year: int


_PAPERS: dict[str, _Paper] = {  # by arXiv number
    "1412.6550": _Paper(
        "romero2015fitnets",
        "{FitNets}: Hints for Thin Deep Nets",
        "Romero, Adriana and Ballas, Nicolas and Kahou, Samira Ebrahimi and Chassang, Antoine and Gatta, Carlo and "
        "Bengio, Yoshua",
        "International Conference on Learning Representations",
        2015,
    ),
    "1503.02531": _Paper(
        "hinton2015distilling",
        "Distilling the Knowledge in a Neural Network",
        "Hinton, Geoffrey and Vinyals, Oriol and Dean, Jeff",
        "",
        2015,
    ),
    "1708.02002": _Paper(
        "lin2017focal",
        "Focal Loss for Dense Object Detection",
        "Lin, Tsung-Yi and Goyal, Priya and Girshick, Ross and He, Kaiming and Doll{\\'a}r, Piotr",
        "ICCV",
        2017,
    ),
    "1904.01355": _Paper(
        "tian2019fcos",
        "{FCOS}: Fully Convolutional One-Stage Object Detection",
        "Tian, Zhi and Shen, Chunhua and Chen, Hao and He, Tong",
        "ICCV",
        2019,
    ),
    "1906.03609": _Paper(
        "wang2019finegrained",
        "Distilling Object Detectors with Fine-grained Feature Imitation",
        "Wang, Tao and Yuan, Li and Zhang, Xiaopeng and Feng, Jiashi",
        "CVPR",
        2019,
    ),
    "1912.02424": _Paper(
        "zhang2020atss",
        "Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive Training Sample Selection",
        "Zhang, Shifeng and Chi, Cheng and Yao, Yongqiang and Lei, Zhen and Li, Stan Z.",
        "CVPR",
        2020,
    ),
    "2006.04388": _Paper(
        "li2020gfl",
        "Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for Dense Object Detection",
        "Li, Xiang and Wang, Wenhai and Wu, Lijun and Chen, Shuo and Hu, Xiaolin and Li, Jun and Tang, Jinhui and "
        "Yang, Jian",
        "NeurIPS",
        2020,
    ),
    "2011.12885": _Paper(
        "li2021gflv2",
        "Generalized Focal Loss {V2}: Learning Reliable Localization Quality Estimation for Dense Object Detection",
        "Li, Xiang and Wang, Wenhai and Hu, Xiaolin and Li, Jun and Tang, Jinhui and Yang, Jian",
        "CVPR",
        2021,
    ),
    "2011.13256": _Paper(
        "shu2021cwd",
        "Channel-wise Knowledge Distillation for Dense Prediction",
        "Shu, Changyong and Liu, Yifan and Gao, Jianfei and Yan, Zheng and Shen, Chunhua",
        "ICCV",
        2021,
    ),
    "2102.12252": _Paper(
        "zheng2022ld",
        "Localization Distillation for Dense Object Detection",
        "Zheng, Zhaohui and Ye, Rongguang and Wang, Ping and Ren, Dongwei and Zuo, Wangmeng and Hou, Qibin and "
        "Cheng, Ming-Ming",
        "CVPR",
        2022,
    ),
    "2103.02340": _Paper(
        "dai2021gid",
        "General Instance Distillation for Object Detection",
        "Dai, Xing and Jiang, Zeren and Wu, Zhao and Bao, Yiping and Wang, Zhicheng and Liu, Si and Zhou, Erjin",
        "CVPR",
        2021,
    ),
    "2103.14475": _Paper(
        "guo2021defeat",
        "Distilling Object Detectors via Decoupled Features",
        "Guo, Jianyuan and Han, Kai and Wang, Yunhe and Wu, Han and Chen, Xinghao and Xu, Chunjing and Xu, Chang",
        "CVPR",
        2021,
    ),
    "2111.11837": _Paper(
        "yang2022fgd",
        "Focal and Global Knowledge Distillation for Detectors",
        "Yang, Zhendong and Li, Zhe and Jiang, Xiaohu and Gong, Yuan and Yuan, Zehuan and Zhao, Danpei and Yuan, Chun",
        "CVPR",
        2022,
    ),
    "2205.01529": _Paper(
        "yang2022mgd",
        "Masked Generative Distillation",
        "Yang, Zhendong and Li, Zhe and Shao, Mingqi and Shi, Dachuan and Yuan, Zehuan and Yuan, Chun",
        "ECCV",
        2022,
    ),
    "2205.10536": _Paper(
        "huang2022dist",
        "Knowledge Distillation from A Stronger Teacher",
        "Huang, Tao and You, Shan and Wang, Fei and Qian, Chen and Xu, Chang",
        "NeurIPS",
        2022,
    ),
    "2207.02039": _Paper(
        "cao2022pkd",
        "{PKD}: General Distillation Framework for Object Detectors via {P}earson Correlation Coefficient",
        "Cao, Weihan and Zhang, Yifan and Gao, Jianfei and Cheng, Anda and Cheng, Ke and Cheng, Jian",
        "NeurIPS",
        2022,
    ),
    "2306.11369": _Paper(
        "wang2024crosskd",
        "{CrossKD}: Cross-Head Knowledge Distillation for Object Detection",
        "Wang, Jiabao and Chen, Yuming and Zheng, Zhaohui and Li, Xiang and Cheng, Ming-Ming and Hou, Qibin",
        "CVPR",
        2024,
    ),
    "2308.14286": _Paper(
        "yang2023bckd",
        "Bridging Cross-task Protocol Inconsistency for Distillation in Dense Object Detection",
        "Yang, Longrong and Zhou, Xianpan and Li, Xuewei and Qiao, Liang and Li, Zheyang and Yang, Ziwei and "
        "Wang, Gaoang and Li, Xi",
        "ICCV",
        2023,
    ),
}
FAMILY_PAPERS = {
    "gfocal": "2006.04388",
    "gfocalv2": "2011.12885",
    "atss": "1912.02424",
    "fcos": "1904.01355",
    "retinanet": "1708.02002",
}


def bibtex(papers: Iterable[str]) -> str:
    """BibTeX entries of papers, each once; those that are not known are left out.

    Args:
        papers: Addresses on arXiv, or numbers there.
    """
    numbers = dict.fromkeys(re.sub(r".*/", "", paper) for paper in papers if paper)
    return "\n\n".join(_entry(number, _PAPERS[number]) for number in numbers if number in _PAPERS)


def _entry(number: str, paper: _Paper) -> str:
    fields = {"title": paper.title, "author": paper.authors, "booktitle": paper.venue, "year": str(paper.year)}
    if not paper.venue:
        fields["journal"] = f"arXiv:{number}"
    fields |= {"eprint": number, "archivePrefix": "arXiv"}
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    kind = "inproceedings" if paper.venue else "article"
    return "\n".join([f"@{kind}{{{paper.key},", *lines, "}"])
